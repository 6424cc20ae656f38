"""The fork server: a process that imports the modules of a run once and forks a worker from itself on request.

`eflm.controller.fork_server` starts it and sends the requests. The server starts no threads and uses no device, so that
a forked worker is in the same state as a new process.
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
import sys
from contextlib import suppress
from typing import Any

from eflm.protocol.fork_server import HEADER


def main(arguments: list[str] | None = None) -> int:
    """Import the modules, then fork workers until the parent closes the socket."""
    parser = argparse.ArgumentParser(prog="python -m eflm.worker.fork_server")
    parser.add_argument("--socket", type=int, required=True, help="descriptor of the socket for requests")
    parser.add_argument("--parent", type=int, required=True, help="process that must stay alive")
    parser.add_argument("--preload", default="", help="modules to import, separated by commas")
    options = parser.parse_args(arguments)
    from eflm.lifetime import die_with

    die_with(options.parent)
    requests = socket.socket(fileno=options.socket)
    for module in filter(None, options.preload.split(",")):
        _send(requests, importing=module)
        # If a module cannot be imported, the worker that needs it fails with a clear error.
        with suppress(Exception):
            importlib.import_module(module)
    # The garbage collector of a worker must not visit these objects: that would copy their memory pages.
    gc.collect()
    gc.freeze()
    _serve(requests)
    return 0


def _serve(requests: socket.socket) -> None:
    woken, waker = os.pipe()
    for descriptor in (woken, waker):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is woken:
                    _report_ended(requests, woken)
                    continue
                header, descriptors, _, _ = socket.recv_fds(requests, HEADER, 3)
                if not header:
                    return
                if not descriptors:
                    _send(requests, ready=True, unforkable=_unforkable())
                    continue
                place = json.loads(requests.recv(int(header), socket.MSG_WAITALL))
                pid = os.fork()
                if pid == 0:
                    selector.close()
                    for descriptor in (woken, waker):
                        os.close(descriptor)
                    requests.close()
                    _become_worker(descriptors, **place)
                # The worker does the same. The first of both calls creates the group, so the parent can always kill it.
                with suppress(OSError):
                    os.setpgid(pid, pid)
                for descriptor in descriptors:
                    os.close(descriptor)
                _send(requests, forked=pid)


def _unforkable() -> str | None:
    """Return the reason why workers must not be forked, or None."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return "an import initialized CUDA, which a forked process cannot use afterwards"
    return None


def _become_worker(descriptors: list[int], folder: str, environment: dict[str, str]) -> None:
    from eflm.worker.main import run_and_exit

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
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    run_and_exit([f"--events={events}", f"--parent={os.getppid()}"])


def _report_ended(requests: socket.socket, woken: int) -> None:
    """Send the exit status of each worker that has ended."""
    with suppress(BlockingIOError):
        os.read(woken, 1 << 10)
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _send(requests, ended=pid, status=os.waitstatus_to_exitcode(status))


def _send(requests: socket.socket, **message: Any) -> None:
    requests.sendall(json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
