"""What is kept from one run to the next in the user's cache folder: peaks, hashes, tokenizers, autoencoders.

Several processes may write at the same time, so every change is made under a lock of the file.
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

#: A process that holds a lock for longer than this is taken for stuck; the entry is then not kept.
_PATIENCE = 10.0


def cache_folder() -> Path:
    """The folder of this user; XDG_CACHE_HOME moves it."""
    return Path(user_cache_dir("eflm"))


class Cache:
    """A JSON file of entries by key. A folder that cannot be written costs time in later runs and nothing else."""

    def __init__(self, name: str) -> None:
        self.path = cache_folder() / name

    def get(self, key: str) -> Any:
        """The entry, or None where there is none or the file is damaged."""
        return self._entries().get(key)

    def put(self, key: str, value: Any) -> None:
        """Add or replace one entry; entries that other processes add at the same time are kept."""
        with suppress(OSError, Timeout), locked(self.path):
            entries = self._entries() | {key: value}
            write_atomically(self.path, json.dumps(entries, indent=1).encode())

    def _entries(self) -> dict[str, Any]:
        try:
            entries = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}
        return entries if isinstance(entries, dict) else {}


@contextmanager
def locked(path: Path, timeout: float = _PATIENCE) -> Iterator[None]:
    """A block that only one process at a time is in, for the file or folder at `path`.

    Raises OSError where no lock can be made, and filelock.Timeout after `timeout` seconds (negative: never).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f"{path.name}.lock"), timeout=timeout):
        yield


def remember(name: str, make: Callable[[], bytes]) -> bytes:
    """What `make` returns, made once per `name`, which must contain everything that the content depends on.

    A second process that asks for the same name waits for the first. A damaged file is made again.
    """
    path = cache_folder() / name
    content = _read(path)
    if content is not None:
        return content
    with ExitStack() as stack:
        with suppress(OSError):  # a read-only home or a full disk: the content is made and not kept
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
