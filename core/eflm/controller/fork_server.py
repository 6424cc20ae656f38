"""Starts a fork server and sends requests to it. Runs in the parent process.

A fork server is a process that has already done the slow imports and forks workers from itself. The code of the server
is in `eflm.worker.fork_server`. `eflm.controller.fork_server_pool` keeps the servers of the parent.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from eflm.protocol.fork_server import header

#: Modules for every run, the same for all of its stages, so that the memory of inference does not depend on whether the
#: run also trains. The plan adds the modules that its plugins need.
PRELOAD = (
    "accelerate",
    "numpy",
    "safetensors.torch",
    "torch",
    "torch._dynamo",
    "torch.utils.flop_counter",
    "transformers",
    "transformers.models.auto.modeling_auto",
    "eflm.worker.run_step",
    "eflm.worker.stages.finetune",
    "eflm.worker.stages.infer",
    "eflm.worker.stages.pretrain",
)


class ImportTimeout(Exception):
    """A fork server was still importing at the deadline. The message is the name of the module."""


class ForkServer:
    """A fork server, which is a child of this process. If this process ends, the server and its workers end too."""

    def __init__(self, environment: dict[str, str], preload: Iterable[str]) -> None:
        self._ours, theirs = socket.socketpair()
        modules = ",".join(dict.fromkeys((*PRELOAD, *preload)))
        command = [sys.executable, "-P", "-m", "eflm.worker.fork_server"]
        command += [f"--socket={theirs.fileno()}", f"--parent={os.getpid()}", f"--preload={modules}"]
        with theirs:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                # torch otherwise looks for GPUs by initializing CUDA, which a forked process cannot use afterwards.
                env={**environment, "PYTORCH_NVML_BASED_CUDA_CHECK": "1"},
            )
        self._received = b""
        self._turn = threading.RLock()  # one thread at a time sends a request and waits for the reply
        self._importing = "eflm"
        self.unforkable: str | None = None  #: why workers must not be forked; known after `wait_until_ready`
        self._statuses: dict[int, int] = {}
        self._running: set[int] = set()

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        """Return whether the server is running."""
        return self._process.poll() is None

    @property
    def idle(self) -> bool:
        """Whether no worker is known to be running."""
        return not self._running

    def wait_until_ready(self, deadline: float | None = None) -> None:
        """Wait until the imports are done.

        Raises ImportTimeout at `deadline` (time.monotonic) and OSError if the server has died.
        """
        with self._turn:
            self._ours.sendall(header(b""))
            message = self._await("ready", deadline)
            if message is None:
                raise ImportTimeout(self._importing)
            self.unforkable = message["unforkable"]

    def fork(
        self, standard_input: int, output: int, events: int, environment: dict[str, str]
    ) -> ForkedProcess:
        """Fork a worker with these descriptors, in the working folder of this process.

        The descriptors stay open in this process. `environment` is the whole environment of the worker. Raises OSError
        if the server has died.
        """
        place = json.dumps({"folder": os.getcwd(), "environment": environment}).encode()
        with self._turn:
            socket.send_fds(self._ours, [header(place)], [standard_input, output, events])
            self._ours.sendall(place)
            pid = self._await("forked", None)["forked"]
            self._running.add(pid)
            return ForkedProcess(self, pid)

    def status(self, pid: int, timeout: float | None) -> int | None:
        """Return the exit status of a worker, negative for a signal; None if it still runs after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._turn:
            while pid not in self._statuses:
                try:
                    if self._await("ended", deadline) is None:
                        return None
                except OSError:
                    return -signal.SIGKILL  # the workers of a server are killed when it ends
            return self._statuses[pid]

    def close(self) -> None:
        """End the server and all of its workers."""
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        self._ours.close()

    def _await(self, word: str, deadline: float | None) -> Any:
        """Return the next message with the key `word`; None at `deadline`. Messages before it are recorded.

        Raises OSError if the server has died.
        """
        while True:
            message = self._next(deadline)
            if message is None:
                return None
            if "importing" in message:
                self._importing = message["importing"]
            if "ended" in message:
                self._statuses[message["ended"]] = message["status"]
                self._running.discard(message["ended"])
            if word in message:
                return message

    def _next(self, deadline: float | None) -> dict[str, Any] | None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._ours, selectors.EVENT_READ)
            while b"\n" not in self._received:
                if not selector.select(None if deadline is None else max(deadline - time.monotonic(), 0.0)):
                    return None
                chunk = self._ours.recv(1 << 12)
                if not chunk:
                    raise OSError("the fork server died")
                self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message


class ForkedProcess:
    """A worker that the server forked, with the methods of `subprocess.Popen` that `WorkerProcess` uses."""

    def __init__(self, server: ForkServer, pid: int) -> None:
        self._server = server
        self.pid = pid

    def poll(self) -> int | None:
        return self._server.status(self.pid, 0.0)

    def wait(self, timeout: float | None = None) -> int:
        status = self._server.status(self.pid, timeout)
        if status is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired("worker", timeout)
        return status
