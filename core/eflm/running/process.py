"""The worker as a process: started in a group of its own, listened to, ended, and its end put into words.

`eflm.running.run` owns one per run. Whatever happens in the `with` block, nothing of the worker outlives it.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self

#: How long a worker that has said its last word, or whose pipe has closed, may take to end.
GRACE_SECONDS = 10.0
LOG_TAIL_BYTES = 4000


class WorkerTimeout(Exception):
    """The worker did not finish within the time that the spec gives it."""


class WorkerProcess:
    """`python -m eflm.running.worker`, given `spec` as JSON on its standard input."""

    def __init__(self, spec: str, timeout: float | None) -> None:
        # It has no name, so that not even SIGKILL leaves it behind.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._events, descriptor = os.pipe()
        try:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "eflm.running.worker",
                    f"--events={descriptor}",
                    f"--parent={os.getpid()}",
                ],
                stdin=subprocess.PIPE,
                stdout=self._log,
                stderr=self._log,
                pass_fds=(descriptor,),
                start_new_session=True,
                env=_environment(),
            )
        except BaseException:
            os.close(self._events)
            self._log.close()
            raise
        finally:
            os.close(descriptor)
        self._send(spec)

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        os.close(self._events)
        self._log.close()
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()

    def lines(self) -> Iterator[bytes]:
        """The worker's events as they come, until it closes the pipe. WorkerTimeout when its time is up."""
        rest = b""
        os.set_blocking(self._events, False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._events, selectors.EVENT_READ)
            while True:
                if self._deadline is not None and time.monotonic() >= self._deadline:
                    raise WorkerTimeout
                if not selector.select(self._patience()):
                    # A child of the worker may hold the pipe open after the worker itself has died.
                    if self._process.poll() is not None:
                        return
                    continue
                chunk = os.read(self._events, 1 << 16)
                if not chunk:
                    return
                *whole, rest = (rest + chunk).split(b"\n")
                yield from whole

    def wait(self) -> int:
        """The exit status, negative for a signal. A worker that hangs after its last word is killed."""
        try:
            return self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._process.wait()

    def kill(self) -> None:
        """End the worker and everything that it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def log_tail(self) -> str:
        """The end of what the worker and its libraries printed."""
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(size - LOG_TAIL_BYTES, 0))
        return self._log.read().decode(errors="replace").strip()

    def _patience(self) -> float:
        if self._deadline is None:
            return 0.5
        return min(0.5, max(self._deadline - time.monotonic(), 0))

    def _send(self, spec: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(spec.encode() + b"\n")
            # The pipe stays open: when it closes, the worker knows that this process has gone.
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it died at once; its exit status will tell


def _environment() -> dict[str, str]:
    """This process's environment, with its module path: a plugin that is found here must be found there."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    environment = {**os.environ, "PYTHONPATH": path}
    if not environment.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}:
        # By default OpenMP threads spin at a barrier for long, on the core that the thread they wait for may need: a
        # little other work on the machine slows a step tenfold and more. So short a spin costs nothing when the
        # machine is idle and slows a step by what the other work takes when it is not.
        environment["GOMP_SPINCOUNT"] = "1000"
    return environment


def describe_end(status: int, resident: int | None) -> str:
    """Why a worker ended without a word, from its exit status and the memory that it last held in bytes."""
    if status >= 0:
        return f"the worker ended with exit status {status} before it was done"
    name = signal.Signals(-status).name if -status in signal.valid_signals() else f"signal {-status}"
    held = "" if resident is None else f"; it held {resident / 1e9:.1f} GB when it was last seen"
    if -status == signal.SIGKILL:
        return (
            "the worker was killed by SIGKILL, which usually means that the machine ran out of memory"
            f"{held}; a smaller model, batch or bit width may fit"
        )
    return f"the worker died by {name}{held}"
