"""Standard output belongs to the command: what plugins and libraries print goes to standard error."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """Text of a plugin or a file without control characters, which a terminal would obey."""
    return _CONTROL.sub("", text)


@contextmanager
def stdout_for_results() -> Iterator[None]:
    """A block in which descriptor 1 is standard error, also for code that does not go through Python.

    Used around work that calls third-party code; the command writes its document after the block.
    """
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError, AttributeError):  # a test or a notebook has replaced the stream
        yield
        return
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    kept = os.dup(descriptor)
    try:
        os.dup2(2, descriptor)
        yield
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        os.dup2(kept, descriptor)
        os.close(kept)
