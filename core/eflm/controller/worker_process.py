"""One worker process: started in a process group of its own, read from, and ended.

`eflm.controller.worker_group` owns the workers of a stage. Nothing of a worker outlives the `with` block.
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

#: How long a worker may take to exit after it has closed its pipe.
GRACE_SECONDS = 10.0
LOG_TAIL_BYTES = 4000


class WorkerProcess:
    """A worker, given `order` as a line of JSON on its standard input.

    `isolation`: "spawn" starts a new interpreter, "forkserver" forks one that has already imported what every run needs
    and the modules in `preload`. Neither contains anything of an earlier run. `environment`: variables in addition to
    those of this process. `deadline` (time.monotonic) limits the wait for these imports: ImportTimeout.
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
        # It has no name, so that nothing is left after a SIGKILL.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._rest = b""
        own = {**worker_environment(), **(environment or {})}
        self.fallback: str | None = None  #: why it was spawned although it should have been forked
        self._events, events = os.pipe()
        os.set_blocking(self._events, False)
        standard_input, self._input = os.pipe()
        try:
            started: Running | str = ""
            if isolation == "forkserver":
                started = fork(preload, standard_input, self._log.fileno(), events, own, deadline=deadline)
            if isinstance(started, str):
                self.fallback = started or None
                started = self._spawn(standard_input, events, own)
            self._process = started
        except BaseException:
            os.close(self._events)
            os.close(self._input)
            self._log.close()
            raise
        finally:
            os.close(events)
            os.close(standard_input)
        self._send(order)

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
        os.close(self._events)
        self._log.close()
        os.close(self._input)

    def fileno(self) -> int:
        """The pipe of its events."""
        return self._events

    def read(self) -> list[bytes] | None:
        """The events since the last call; None once it has closed the pipe."""
        chunk = os.read(self._events, 1 << 16)
        if not chunk:
            return None
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        return whole

    def alive(self) -> bool:
        return self._process.poll() is None

    def wait(self) -> int:
        """The exit status, negative for a signal. A worker that does not exit after its last event is killed."""
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
        """The end of what the worker and its libraries printed."""
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(size - LOG_TAIL_BYTES, 0))
        return self._log.read().decode(errors="replace").strip()

    def _send(self, order: str) -> None:
        # The pipe stays open: when it closes, the worker knows that this process has ended.
        remaining = memoryview(order.encode() + b"\n")
        with suppress(BrokenPipeError):  # it died at once; its exit status says why
            while remaining:
                remaining = remaining[os.write(self._input, remaining) :]


def describe_end(status: int, resident: int | None) -> str:
    """Why a worker ended without a reason, from its exit status and the bytes of memory that it last held."""
    if status >= 0:
        return f"the worker ended with exit status {status} before it was done"
    name = signal.Signals(-status).name if -status in signal.valid_signals() else f"signal {-status}"
    held = "" if resident is None else f"; it held {resident / 1e9:.1f} GB when it was last sampled"
    if -status == signal.SIGKILL:
        return (
            "the worker was killed by SIGKILL, which usually means that the machine ran out of memory"
            f"{held}; a smaller model, batch or bit width may fit"
        )
    return f"the worker died by {name}{held}"
