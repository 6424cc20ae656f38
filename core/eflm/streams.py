"""Keeps standard output for the results of a command: what plugins and libraries print goes to standard error.

Used by the command line, and by the registry while it imports the manifests of plugins.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """Remove control characters from the text of a plugin or a file, because a terminal would execute them."""
    return _CONTROL.sub("", text)


class _Redirection:
    """The open blocks of all threads: how many there are, and the descriptor that the last one restores from a copy."""

    lock = threading.Lock()
    blocks = 0
    descriptor = copy = -1


@contextmanager
def stdout_for_results() -> Iterator[None]:
    """A block in which descriptor 1 is standard error, also for code that does not go through Python.

    Used around work that calls third-party code; the command writes its document after the block. Blocks may be nested
    and may be open in several threads; the end of the last one restores the descriptor.
    """
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError, AttributeError):  # a test or a notebook has replaced the stream
        with redirect_stdout(sys.stderr):
            yield
        return
    with _Redirection.lock:
        if not _Redirection.blocks:
            _flush()
            _Redirection.descriptor, _Redirection.copy = descriptor, os.dup(descriptor)
            os.dup2(2, descriptor)
        _Redirection.blocks += 1
    try:
        yield
    finally:
        with _Redirection.lock:
            _Redirection.blocks -= 1
            if not _Redirection.blocks:
                _flush()
                os.dup2(_Redirection.copy, _Redirection.descriptor)
                os.close(_Redirection.copy)


def _flush() -> None:
    """Write what Python and the C library have buffered."""
    from ctypes import CDLL

    with suppress(OSError, ValueError):
        sys.stdout.flush()
    with suppress(OSError, AttributeError):
        CDLL(None).fflush(None)
