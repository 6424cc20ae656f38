"""Raises an exception on SIGTERM, so that a terminated run saves its finished stages like an interrupted one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from eflm.controller.run_options import Terminated


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Make SIGTERM raise `Terminated` while the context is open. Does nothing outside of the main thread."""
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
