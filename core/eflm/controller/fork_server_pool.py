"""The fork servers of this process, and the environment that they and their workers get."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Protocol

from eflm.controller.fork_server import ForkServer, ImportTimeout
from eflm.errors import EflmError


class Running(Protocol):
    """A started process, as `subprocess.Popen` is one."""

    pid: int

    def poll(self) -> int | None:
        """The exit status, None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """The exit status; subprocess.TimeoutExpired when it still runs."""


#: Beginnings of variables that libraries read once, when they are imported: another value needs another server. All
#: others are a worker's own.
READ_AT_IMPORT = (
    "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "PYTHON", "LD_", "DYLD_", "CUDA_", "NVIDIA_", "TORCH", "PYTORCH_",
    "HF_", "HUGGINGFACE_", "TRANSFORMERS_", "BITSANDBYTES_", "TRITON_", "XDG_", "HOME", "PATH", "TMPDIR", "EFLM_",
)  # fmt: skip

#: Idle servers that are kept at one time: two sides of a comparison may need different imports.
MOST_SERVERS = 4

_Key = tuple[tuple[tuple[str, str], ...], frozenset[str]]
#: The servers of this process by what they were started with, the one that was asked last at the end.
_servers: dict[_Key, ForkServer] = {}
_servers_lock = threading.Lock()


def fork_server(preload: Iterable[str] = ()) -> ForkServer:
    """The server for exactly these modules and this process's environment as it is now, started if need be.

    Exactly: what a server has imported is resident memory of its workers, which must not depend on what ran before.
    """
    environment = worker_environment()
    read_early = sorted(
        (name, value) for name, value in environment.items() if name.startswith(READ_AT_IMPORT)
    )
    key = tuple(read_early), frozenset(preload)
    with _servers_lock:
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


def prepare(preload: Iterable[str], deadline: float | None = None) -> None:
    """Start the server for workers with these modules and wait for its imports.

    Raises ImportTimeout at `deadline` (time.monotonic). Other failures are reported by `fork`.
    """
    with suppress(OSError):
        _wait_until_ready(fork_server(preload), deadline)


def fork(
    preload: Iterable[str],
    standard_input: int,
    output: int,
    events: int,
    environment: dict[str, str],
    *,
    deadline: float | None = None,
) -> Running | str:
    """Return a forked worker, or the reason why a fork would be of no use. A server that has died is replaced once.

    Raises ImportTimeout at `deadline` (time.monotonic).
    """
    for _ in range(2):
        server = fork_server(preload)
        try:
            _wait_until_ready(server, deadline)
            if server.unforkable is not None:
                return server.unforkable
            return server.fork(standard_input, output, events, environment)
        except OSError as error:
            fault = error
            server.close()
    raise EflmError(f"no worker could be started: {fault}; --isolation spawn starts one without a server")


def _wait_until_ready(server: ForkServer, deadline: float | None) -> None:
    try:
        server.wait_until_ready(deadline)
    except ImportTimeout:
        server.close()  # the next run must not wait for the same import
        raise


def _close_servers() -> None:
    while _servers:
        _servers.popitem()[1].close()


def worker_environment() -> dict[str, str]:
    """This process's environment with its module path, so that workers find the same plugins."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    environment = {**os.environ, "PYTHONPATH": path}
    if not environment.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}:
        # By default OpenMP threads spin at a barrier for long, on the core that the thread they wait for may need, so
        # that a little other work slows a step tenfold. A short spin costs nothing on an idle machine.
        environment["GOMP_SPINCOUNT"] = "1000"
    return environment
