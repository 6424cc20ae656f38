"""Stores data for later runs in the user's cache folder: measured peaks, hashes, tokenizers, autoencoders.

Several processes may write at the same time, so each file has a lock. The cache is optional: if the folder cannot be
written, later runs compute the data again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from platformdirs import user_cache_dir

from eflm.files import write_atomically

#: Seconds that `Cache.put` waits for the lock. After that, the entry is not stored.
_LOCK_TIMEOUT = 10.0


def cache_folder() -> Path:
    """Return the cache folder of this user. The environment variable XDG_CACHE_HOME changes it."""
    return Path(user_cache_dir("eflm"))


class Cache:
    """A JSON file in the cache folder that maps keys to entries."""

    def __init__(self, name: str) -> None:
        self.path = cache_folder() / name

    def get(self, key: str) -> Any:
        """Return the entry; None if there is none, or if the file is damaged."""
        return self._entries().get(key)

    def put(self, key: str, value: Any) -> None:
        """Add or replace one entry, and keep the entries that other processes add at the same time.

        Stores nothing if the file cannot be written, or if the lock is not free after 10 seconds.
        """
        with suppress(OSError, Timeout), locked(self.path, _LOCK_TIMEOUT):
            entries = self._entries() | {key: value}
            write_atomically(self.path, json.dumps(entries, indent=1).encode())

    def _entries(self) -> dict[str, Any]:
        try:
            entries = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}
        return entries if isinstance(entries, dict) else {}


@contextmanager
def locked(path: Path, timeout: float) -> Iterator[None]:
    """Hold the lock of the file or folder at `path`, which one process at a time can have.

    Raises filelock.Timeout if the lock is not free after `timeout` seconds; a negative timeout waits without limit.
    Raises OSError if the lock file cannot be created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f"{path.name}.lock"), timeout=timeout):
        yield


def remember(name: str, make: Callable[[], bytes]) -> bytes:
    """Return the content that is stored as `name`. If none is stored, or it is damaged, store the result of `make`.

    `name` must contain everything on which the content depends. A process waits without limit while another one makes
    the same content. If the lock file cannot be created, the content is made without a lock, and stored if possible.
    """
    path = cache_folder() / name
    content = _read(path)
    if content is not None:
        return content
    with ExitStack() as stack:
        with suppress(OSError):  # a read-only home or a full disk
            stack.enter_context(locked(path, timeout=-1))
        content = _read(path)
        if content is None:
            content = make()
            with suppress(OSError):
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
