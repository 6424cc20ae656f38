"""A cache of small files in the user's cache folder, shared between runs. Recreating a lost file takes seconds.

`stdlib_text` and `tokenizer` store their results here.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path

import platformdirs

from eflm.files import write_atomically


def remember(name: str, make: Callable[[], bytes]) -> bytes:
    """Return the cached content of `name`, or call `make` and cache its result.

    `name` must contain everything that the content depends on. A damaged file is created again. If the cache folder is
    not writable, the result is not cached.
    """
    path = Path(platformdirs.user_cache_dir("eflm")) / name
    content = _read(path)
    if content is None:
        content = make()
        # A read-only home directory or a full disk must not stop the run: the content is already in memory.
        with contextlib.suppress(OSError):
            write_atomically(path, _digest(content) + b"\n" + content)
    return content


def _read(path: Path) -> bytes | None:
    try:
        stored = path.read_bytes()
    except OSError:
        return None
    digest, _, content = stored.partition(b"\n")
    return content if digest == _digest(content) else None


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode("ascii")
