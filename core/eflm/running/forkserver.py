"""A server that has the heavy imports behind it and forks a worker from itself on request: fresh, and ready at once.

`eflm.running.process` talks to it through `ForkServer`; `python -m eflm.running.forkserver` is the server. It imports
and forks and does nothing else: no thread runs in it, no device is touched, so that a fork is as good as a new process.
"""

from __future__ import annotations

import argparse
import gc
import importlib
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

#: What every run imports. Whoever starts the server adds what its runs need besides.
PRELOAD = (
    "numpy",
    "torch",
    "torch.utils.flop_counter",
    "transformers",
    "transformers.models.auto.modeling_auto",
    "eflm.assemble",
    "eflm.compose",
    "eflm.measure.hardware",
    "eflm.measure.model",
    "eflm.registry",
    "eflm.running.device",
    "eflm.stages.finetune",
    "eflm.stages.infer",
    "eflm.stages.pretrain",
)


#: Bytes of a message's first part, which says how many follow.
HEADER = 16


def _header(message: bytes) -> bytes:
    return f"{len(message):0{HEADER}d}".encode()


class ForkServer:
    """One server, a child of this process; it and all its workers die with it."""

    def __init__(self, environment: dict[str, str], preload: Iterable[str]) -> None:
        self._ours, theirs = socket.socketpair()
        modules = ",".join(dict.fromkeys((*PRELOAD, *preload)))
        command = [sys.executable, "-P", "-m", "eflm.running.forkserver"]
        command += [f"--socket={theirs.fileno()}", f"--parent={os.getpid()}", f"--preload={modules}"]
        with theirs:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                # Asked through the driver, "is there a GPU?" would leave a state that no fork can use.
                env={**environment, "PYTORCH_NVML_BASED_CUDA_CHECK": "1"},
            )
        self._received = b""
        self._turn = threading.RLock()  # one question and its answer at a time, whichever thread asks
        self.unforkable: str | None = None  #: why its forks would be of no use; known once it is ready
        self._statuses: dict[int, int] = {}
        self._at_work: set[int] = set()

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        """Whether it can still be asked."""
        return self._process.poll() is None

    @property
    def idle(self) -> bool:
        """Whether none of its workers is known to be at work."""
        return not self._at_work

    def wait_until_ready(self) -> None:
        """Return once the imports are done. A worker may be asked for before; it comes when they are."""
        with self._turn:
            self._ours.sendall(_header(b""))
            self.unforkable = self._await("ready", None)["unforkable"]

    def fork(
        self, standard_input: int, output: int, events: int, environment: dict[str, str]
    ) -> ForkedProcess:
        """A new worker on these descriptors, which stay open here, in this process's folder and environment.

        OSError when the server has died.
        """
        place = json.dumps({"folder": os.getcwd(), "environment": environment}).encode()
        with self._turn:
            socket.send_fds(self._ours, [_header(place)], [standard_input, output, events])
            self._ours.sendall(place)
            pid = self._await("forked", None)["forked"]
            self._at_work.add(pid)
            return ForkedProcess(self, pid)

    def status(self, pid: int, timeout: float | None) -> int | None:
        """The exit status of a worker, negative for a signal; None when it is still at work after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._turn:
            while pid not in self._statuses:
                remaining = None if deadline is None else max(deadline - time.monotonic(), 0.0)
                try:
                    if self._await("ended", remaining) is None:
                        return None
                except OSError:
                    return -signal.SIGKILL  # workers die with their server
            return self._statuses[pid]

    def close(self) -> None:
        """End the server and whatever it has forked."""
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        self._ours.close()

    def _await(self, word: str, timeout: float | None) -> Any:
        """The next message that has `word`; others are noted. None after `timeout` seconds, OSError if it has died."""
        while True:
            message = self._next(timeout)
            if message is None:
                return None
            if "ended" in message:
                self._statuses[message["ended"]] = message["status"]
                self._at_work.discard(message["ended"])
            if word in message:
                return message

    def _next(self, timeout: float | None) -> dict[str, Any] | None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._ours, selectors.EVENT_READ)
            while b"\n" not in self._received:
                if not selector.select(timeout):
                    return None
                chunk = self._ours.recv(1 << 12)
                if not chunk:
                    raise OSError("the fork server has died")
                self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message


class ForkedProcess:
    """A worker that the server forked, with the part of `subprocess.Popen` that its owner uses."""

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


# --- the server's side ------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Import, then fork on request until the other end closes."""
    parser = argparse.ArgumentParser(prog="python -m eflm.running.forkserver")
    parser.add_argument("--socket", type=int, required=True, help="descriptor of the line to who asks")
    parser.add_argument("--parent", type=int, required=True, help="process that must stay alive")
    parser.add_argument("--preload", default="", help="modules to import, separated by commas")
    options = parser.parse_args(arguments)
    from eflm.running.worker import die_with

    die_with(options.parent)
    for module in filter(None, options.preload.split(",")):
        # What cannot be imported is a worker's to complain of, in its own words.
        with suppress(Exception):
            importlib.import_module(module)
    # What is here to stay is not looked through again, nor copied for it, in every worker.
    gc.collect()
    gc.freeze()
    _serve(socket.socket(fileno=options.socket))
    return 0


def _serve(line: socket.socket) -> None:
    woken, waker = os.pipe()
    for descriptor in (woken, waker):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    with selectors.DefaultSelector() as selector:
        selector.register(line, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is woken:
                    _tell_ended(line, woken)
                    continue
                header, descriptors, _, _ = socket.recv_fds(line, HEADER, 3)
                if not header:
                    return
                if not descriptors:
                    _tell(line, ready=True, unforkable=_unforkable())
                    continue
                place = json.loads(line.recv(int(header), socket.MSG_WAITALL))
                pid = os.fork()
                if pid == 0:
                    selector.close()
                    for descriptor in (woken, waker):
                        os.close(descriptor)
                    line.close()
                    _become_worker(descriptors, **place)
                # Both sides see to it, since either may come first: a kill of the group must find one.
                with suppress(OSError):
                    os.setpgid(pid, pid)
                for descriptor in descriptors:
                    os.close(descriptor)
                _tell(line, forked=pid)


def _unforkable() -> str | None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return "an import touched the GPU, which a forked process could then not use"
    return None


def _become_worker(descriptors: list[int], folder: str, environment: dict[str, str]) -> None:
    from eflm.running.worker import run_and_exit

    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with suppress(OSError):
        os.setpgid(0, 0)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    standard_input, output, events = descriptors
    os.dup2(standard_input, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(standard_input)
    os.close(output)
    # They live as long as the process.
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    run_and_exit([f"--events={events}", f"--parent={os.getppid()}"])


def _tell_ended(line: socket.socket, woken: int) -> None:
    with suppress(BlockingIOError):
        os.read(woken, 1 << 10)
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _tell(line, ended=pid, status=os.waitstatus_to_exitcode(status))


def _tell(line: socket.socket, **message: Any) -> None:
    line.sendall(json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
