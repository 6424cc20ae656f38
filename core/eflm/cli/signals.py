"""SIGTERM as an exception, so that a run ends like one that was interrupted: with its finished stages saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from eflm.controller.run_options import Terminated


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """A block in which SIGTERM raises `Terminated`; in other threads than the main one it does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
