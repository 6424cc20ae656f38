"""Writes files atomically. Used for results, saved models and the cache folder."""

from __future__ import annotations

import os
import secrets
import time
from contextlib import suppress
from pathlib import Path

_PREFIX = ".unfinished-"
#: Seconds after which an unfinished file is removed if its process does not exist. The process may also be on another
#: machine with the same disk, which must be given the time to finish.
_STALE_SECONDS = 3600.0


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file such that readers see either its old or its new content, also if this process is killed.

    Creates the folder of the file. Raises OSError if the file cannot be written; its old content is then unchanged.
    Removes unfinished files in the folder that killed processes have left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path.parent)
    # Created by open(), so that the file gets the mode that the process's umask allows.
    temporary = path.parent / f"{_PREFIX}{os.getpid()}-{secrets.token_hex(8)}"
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _remove_stale(folder: Path) -> None:
    """Remove old unfinished files whose process does not exist."""
    for file in folder.glob(f"{_PREFIX}*"):
        pid = file.name.removeprefix(_PREFIX).partition("-")[0]
        with suppress(OSError):
            old = time.time() - file.stat().st_mtime > _STALE_SECONDS
            if old and pid.isdecimal() and not _exists(int(pid)):
                file.unlink()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # a process of another user
        return True
    return True
