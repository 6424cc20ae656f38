"""Keeps the fork servers of the parent process, and defines the environment of servers and workers."""

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
    """A started process, with the part of `subprocess.Popen` that `WorkerProcess` uses."""

    pid: int

    def poll(self) -> int | None:
        """Return the exit status; None while the process runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status. Raises subprocess.TimeoutExpired after `timeout` seconds."""


#: Prefixes of environment variables that libraries read when they are imported: another value needs another server.
#: Each worker gets its own value of all other variables.
READ_AT_IMPORT = (
    "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "PYTHON", "LD_", "DYLD_", "CUDA_", "NVIDIA_", "TORCH", "PYTORCH_",
    "HF_", "HUGGINGFACE_", "TRANSFORMERS_", "BITSANDBYTES_", "TRITON_", "XDG_", "HOME", "PATH", "TMPDIR", "EFLM_",
)  # fmt: skip

#: How many servers are kept. More than one, because the two runs of a comparison may need different imports.
MOST_SERVERS = 4

_Key = tuple[tuple[tuple[str, str], ...], frozenset[str]]
#: The servers of this process by environment and modules, in the order of their last use.
_servers: dict[_Key, ForkServer] = {}
_servers_lock = threading.Lock()


def fork_server(preload: Iterable[str] = ()) -> ForkServer:
    """Return the server for exactly these modules and the current environment; start it if there is none.

    Modules that a server imported are in the resident memory of its workers, so a server with more modules would
    change their memory figures.
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
    """Return a forked worker, or the reason why workers must not be forked.

    If the server has died, a new one is started once. Raises ImportTimeout if the imports are not done at `deadline`
    (time.monotonic), and EflmError if the new server fails, too.
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
    raise EflmError(
        f"no worker could be forked: {fault}; --isolation spawn starts workers without a fork server"
    )


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
    """Return the environment of workers: that of this process, with its module path so that they find the same plugins.

    Limits how long OpenMP threads spin, unless the user has set that.
    """
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    environment = {**os.environ, "PYTHONPATH": path}
    if not environment.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}:
        # By default, OpenMP threads spin for a long time while they wait at a barrier. The thread that is late may need
        # the cores that they occupy, so with a little other load a step takes ten times as long. A short spin costs
        # nothing on an idle machine.
        environment["GOMP_SPINCOUNT"] = "1000"
    return environment
