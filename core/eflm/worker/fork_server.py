"""The fork server: a process that has imported what every run needs and forks workers from itself on request.

`eflm.controller.fork_server` starts it and sends it requests. It only imports and forks. It starts no thread and
touches no device, so that a fork is as good as a new process.
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
    """Import, then fork on request until the other end closes."""
    parser = argparse.ArgumentParser(prog="python -m eflm.worker.fork_server")
    parser.add_argument("--socket", type=int, required=True, help="descriptor of the line to who asks")
    parser.add_argument("--parent", type=int, required=True, help="process that must stay alive")
    parser.add_argument("--preload", default="", help="modules to import, separated by commas")
    options = parser.parse_args(arguments)
    from eflm.worker.main import die_with

    die_with(options.parent)
    line = socket.socket(fileno=options.socket)
    for module in filter(None, options.preload.split(",")):
        _tell(line, importing=module)
        # What cannot be imported is a worker's to complain of, in its own words.
        with suppress(Exception):
            importlib.import_module(module)
    # What is here to stay is not looked through again, nor copied for it, in every worker.
    gc.collect()
    gc.freeze()
    _serve(line)
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
