"""The worker as a process: started in a group of its own, listened to, ended, and its end put into words.

`eflm.running.team` owns those of a run. Whatever happens in the `with` block, nothing of the worker outlives it.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Protocol, Self

from eflm.errors import EflmError
from eflm.running.forkserver import ForkServer

#: How long a worker that has said its last word, or whose pipe has closed, may take to end.
GRACE_SECONDS = 10.0
LOG_TAIL_BYTES = 4000


class Running(Protocol):
    """A started process, as `subprocess.Popen` is one."""

    pid: int

    def poll(self) -> int | None:
        """The exit status, None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """The exit status; subprocess.TimeoutExpired when it still runs."""


class WorkerProcess:
    """A worker, given `spec` as JSON on its standard input.

    `isolation`: "spawn" starts a new interpreter, "forkserver" forks one that has imported already what every run
    needs, and the modules in `preload`. Either way nothing of an earlier run is in it. `environment`: variables of its
    own besides this process's.
    """

    def __init__(
        self,
        spec: str,
        *,
        isolation: str = "spawn",
        preload: Iterable[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        # It has no name, so that not even SIGKILL leaves it behind.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._rest = b""
        own = {**_environment(), **(environment or {})}
        self.fallback: str | None = None  #: why it was spawned although a fork was asked for
        self._events, events = os.pipe()
        os.set_blocking(self._events, False)
        standard_input, self._input = os.pipe()
        try:
            started: Running | str = ""
            if isolation == "forkserver":
                started = _fork(preload, standard_input, self._log.fileno(), events, own)
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
        self._send(spec)

    def _spawn(self, standard_input: int, events: int, environment: dict[str, str]) -> Running:
        command = [sys.executable, "-P", "-m", "eflm.running.worker"]
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
        """The pipe that its events come from."""
        return self._events

    def read(self) -> list[bytes] | None:
        """The events that have come since the last call; None once it has closed the pipe."""
        chunk = os.read(self._events, 1 << 16)
        if not chunk:
            return None
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        return whole

    def alive(self) -> bool:
        return self._process.poll() is None

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

    def _send(self, spec: str) -> None:
        # The pipe stays open: when it closes, the worker knows that this process has gone.
        remaining = memoryview(spec.encode() + b"\n")
        with suppress(BrokenPipeError):  # it died at once; its exit status will tell
            while remaining:
                remaining = remaining[os.write(self._input, remaining) :]


#: Beginnings of variables that libraries read once, when they are imported: another value needs another server. All
#: others are a worker's own.
READ_AT_IMPORT = (
    "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "PYTHON", "LD_", "DYLD_", "CUDA_", "NVIDIA_", "TORCH", "PYTORCH_",
    "HF_", "HUGGINGFACE_", "TRANSFORMERS_", "BITSANDBYTES_", "TRITON_", "XDG_", "HOME", "PATH", "TMPDIR", "EFLM_",
)  # fmt: skip

#: Idle servers that stand ready at one time: two sides of a comparison may need different imports.
MOST_SERVERS = 4

_Key = tuple[tuple[tuple[str, str], ...], frozenset[str]]
#: The servers of this process by what they were started with, the one that was asked last at the end.
_servers: dict[_Key, ForkServer] = {}
_servers_turn = threading.Lock()


def fork_server(preload: Iterable[str] = ()) -> ForkServer:
    """The server for exactly these modules and this process's environment as it is now, started if need be.

    Exactly: what a server has imported is resident memory of its workers, which must not depend on what ran before.
    """
    environment = _environment()
    read_early = sorted(
        (name, value) for name, value in environment.items() if name.startswith(READ_AT_IMPORT)
    )
    key = tuple(read_early), frozenset(preload)
    with _servers_turn:
        server = _servers.pop(key, None)
        if server is not None and not server.alive():
            server.close()
            server = None
        if server is None:
            if not _servers:
                atexit.register(_close_servers)
            idle = [old for old, kept in _servers.items() if kept.idle]
            for old in idle[: max(0, len(_servers) + 1 - MOST_SERVERS)]:
                _servers.pop(old).close()
            server = ForkServer(environment, sorted(key[1]))
        _servers[key] = server
    return server


def prepare(preload: Iterable[str]) -> None:
    """Have the server ready that a worker with these modules will be forked from; the fork tells of what fails."""
    with suppress(OSError):
        fork_server(preload).wait_until_ready()


def _fork(
    preload: Iterable[str], standard_input: int, output: int, events: int, environment: dict[str, str]
) -> Running | str:
    """A forked worker, or why there can be none; of a new server where the old one has died since it was last asked."""
    for _ in range(2):
        server = fork_server(preload)
        try:
            server.wait_until_ready()
            if server.unforkable is not None:
                return server.unforkable
            return server.fork(standard_input, output, events, environment)
        except OSError as error:
            fault = error
            server.close()
    raise EflmError(f"no worker could be started: {fault}; --isolation spawn starts one without a server")


def _close_servers() -> None:
    while _servers:
        _servers.popitem()[1].close()


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
