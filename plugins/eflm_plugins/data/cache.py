"""Small files worth keeping from one run to the next, in the user's cache folder. Losing them costs seconds only.

`stdlib_text` and `tokenizer` keep their work here.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path

import platformdirs

from eflm.files import write_atomically


def remember(name: str, make: Callable[[], bytes]) -> bytes:
    """What `make` returns, made once per `name` (which must say everything that it depends on).

    A file that is damaged is made again; a folder that cannot be written to is done without.
    """
    path = Path(platformdirs.user_cache_dir("eflm")) / name
    content = _read(path)
    if content is None:
        content = make()
        # A read-only home, or a full disk, is no reason to stop: the work is at hand already.
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
