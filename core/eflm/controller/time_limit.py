"""Calls third-party code of the parent process, such as observers and power sources, with a time limit."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Generic, TypeVar

from attrs import define

T = TypeVar("T")


class CallTimeout(Exception):
    """A call did not return in time."""


@define
class Outcome(Generic[T]):
    """The return value of a call, or the exception of a call that failed."""

    value: T | None = None
    failure: BaseException | None = None

    @property
    def reason(self) -> str:
        """Why the call failed, on one line; empty if it did not."""
        if self.failure is None:
            return ""
        if isinstance(self.failure, CallTimeout):
            return str(self.failure)
        return f"{type(self.failure).__name__}: {' '.join(str(self.failure).split())}"


def call_within(seconds: float, name: str, call: Callable[[], T]) -> Outcome[T]:
    """Make a call in a thread called `name`. If it takes longer than `seconds`, the outcome is a CallTimeout.

    A thread cannot be stopped from outside, so the thread of a call that hangs keeps running. It does not keep the
    process alive.
    """
    done: list[Outcome[T]] = []

    def run() -> None:
        try:
            done.append(Outcome(value=call()))
        except BaseException as error:
            done.append(Outcome(failure=error))

    # With --json, standard output must contain nothing but the document.
    with redirect_stdout(sys.stderr):
        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        thread.join(seconds)
    return done[0] if done else Outcome(failure=CallTimeout(f"timed out after {seconds:.3g} s"))
