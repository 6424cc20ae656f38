"""Starts one worker process in its own process group, reads its events, and ends it.

Runs in the parent process. `eflm.controller.worker_group` uses it for the workers of a step. At the end of the `with`
block, the worker and all of its children are killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

from eflm.controller.fork_server_pool import Running, fork, worker_environment

#: A worker that is still running this long after it closed its pipe is killed.
GRACE_SECONDS = 10.0
LOG_TAIL_BYTES = 4000


class WorkerProcess:
    """A running worker. `order` is sent to its standard input as one line of JSON.

    `isolation`: "spawn" starts a new interpreter. "forkserver" forks a process that has already imported the modules of
    every run and those in `preload`. Neither process contains state of an earlier run. `environment`: variables in
    addition to those of this process. Raises ImportTimeout if the fork server is still importing at `deadline`
    (time.monotonic); "spawn" ignores `deadline`.
    """

    def __init__(
        self,
        order: str,
        *,
        isolation: str = "spawn",
        preload: Iterable[str] = (),
        environment: Mapping[str, str] | None = None,
        deadline: float | None = None,
    ) -> None:
        # A file without a name: the kernel deletes it even if this process is killed.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._partial_line = b""
        worker_env = {**worker_environment(), **(environment or {})}
        self.fallback: str | None = None  #: why the worker was spawned although "forkserver" was requested
        self._events, events = os.pipe()
        os.set_blocking(self._events, False)
        standard_input, self._input = os.pipe()
        try:
            started: Running | str = ""
            if isolation == "forkserver":
                started = fork(
                    preload, standard_input, self._log.fileno(), events, worker_env, deadline=deadline
                )
            if isinstance(started, str):
                self.fallback = started or None
                started = self._spawn(standard_input, events, worker_env)
            self._process = started
        except BaseException:
            self._close()
            raise
        finally:
            os.close(events)
            os.close(standard_input)
        try:
            self._send(order)
        except BaseException:
            self.kill()
            self._close()
            raise

    def _spawn(self, standard_input: int, events: int, environment: dict[str, str]) -> Running:
        command = [sys.executable, "-P", "-m", "eflm.worker.main"]
        return subprocess.Popen(
            [*command, f"--events={events}", f"--parent={os.getpid()}"],
            stdin=standard_input,
            stdout=self._log,
            stderr=self._log,
            pass_fds=(events,),
            start_new_session=True,
            env=environment,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._close()

    def _close(self) -> None:
        os.close(self._events)
        os.close(self._input)
        self._log.close()

    def fileno(self) -> int:
        """Return the descriptor of the event pipe, so that selectors accept this object."""
        return self._events

    def read(self) -> list[bytes] | None:
        """Return the events since the last call; None after the worker has closed the pipe."""
        chunk = os.read(self._events, 1 << 16)
        if not chunk:
            return None
        *lines, self._partial_line = (self._partial_line + chunk).split(b"\n")
        return lines

    def alive(self) -> bool:
        """Return whether the worker is running."""
        return self._process.poll() is None

    def wait(self) -> int:
        """Wait for the worker to exit and return its status, negative for a signal. Kill it after GRACE_SECONDS."""
        try:
            return self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._process.wait()

    def kill(self) -> None:
        """Kill the worker and everything that it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def log_tail(self) -> str:
        """Return the end of the output of the worker and its libraries."""
        # The worker writes at the offset that both processes share, so it must not be moved here.
        log = self._log.fileno()
        size = os.fstat(log).st_size
        return os.pread(log, LOG_TAIL_BYTES, max(size - LOG_TAIL_BYTES, 0)).decode(errors="replace").strip()

    def _send(self, order: str) -> None:
        # The pipe stays open: the worker exits when its standard input closes, which happens if this process ends.
        remaining = memoryview(order.encode() + b"\n")
        with suppress(BrokenPipeError):  # the worker has ended; its exit status is reported later
            while remaining:
                remaining = remaining[os.write(self._input, remaining) :]


def describe_end(status: int, resident: int | None) -> str:
    """Describe the end of a worker that reported no error.

    `status`: its exit status, negative for a signal. `resident`: its resident bytes in the last sample.
    """
    if status >= 0:
        return f"the worker ended with exit status {status} before the step was complete"
    name = signal.Signals(-status).name if -status in signal.valid_signals() else f"signal {-status}"
    held = "" if resident is None else f"; its last sample shows {resident / 1e9:.1f} GB of memory"
    if -status == signal.SIGKILL:
        return (
            "the worker was killed by SIGKILL, which usually means that the machine ran out of memory"
            f"{held}; a smaller model, batch or bit width may fit"
        )
    return f"the worker was ended by {name}{held}"
