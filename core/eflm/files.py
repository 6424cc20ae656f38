"""Writing a file whole or not at all: results, and what is kept from one run to the next."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Put `content` at `path`, creating its folder, so that no reader and no killed run leaves or sees half of it.

    OSError when the disk or the folder refuses; what was at `path` then stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Created by open(), so that the file gets the mode that the process's umask allows.
    temporary = path.parent / f".unfinished-{secrets.token_hex(8)}"
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
