"""Metric collectors in a process of their own, which can be killed when one hangs.

`CollectorProcess` is the parent's side; `python -m eflm.controller.collector_process` is the process. Its standard
output is standard error, so a collector that prints, even through C, does not corrupt a document of the parent's.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import selectors
import struct
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any, BinaryIO

from eflm.controller.collect import collect
from eflm.controller.fork_server_pool import worker_environment
from eflm.lifetime import die_with
from eflm.planning.plan import Plan
from eflm.protocol.record import StageRecord
from eflm_schemas import Flag, Metric, RunSpec
from eflm_schemas.convert import from_dict, to_dict, to_json

#: A collector computes on a record of a few megabytes; one that takes longer hangs.
COLLECTOR_SECONDS = 60.0
_LENGTH = struct.Struct(">Q")


class CollectorProcess:
    """Collects metrics stage by stage. It is started when it is first needed and again after it was killed."""

    def __init__(self, spec: RunSpec) -> None:
        self._spec = spec
        self._process: subprocess.Popen[bytes] | None = None
        self._replies = -1
        self._rest = b""

    def start(self) -> None:
        """Start the process now, so that its imports do not overlap with a measurement. Does not wait."""
        if self._process is not None:
            return
        self._replies, replies = os.pipe()
        os.set_blocking(self._replies, False)
        self._rest = b""
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "eflm.controller.collector_process"),
                *(f"--replies={replies}", f"--parent={os.getpid()}"),
            ],
            stdin=subprocess.PIPE,
            stdout=2,  # what collectors print must not get into a document of this process
            pass_fds=(replies,),
            start_new_session=True,
            env=worker_environment(),
        )
        os.close(replies)
        self._send(to_json(self._spec).encode())

    def wait_until_ready(self) -> None:
        """Return once the imports are done, or the process has ended."""
        self._reply(time.monotonic() + COLLECTOR_SECONDS)

    def collect(
        self, record: StageRecord, plan: Plan, deadline: float | None = None
    ) -> tuple[dict[str, Metric], list[Flag]]:
        """See `eflm.controller.collect.collect`. `deadline` (time.monotonic) ends it earlier than COLLECTOR_SECONDS.

        A collector that hangs or ends the process fails, and the others are collected without it.
        """
        failed: dict[str, str] = {}
        for _ in range(len(plan.metrics) + 1):
            self.start()
            self._send(pickle.dumps((record, failed)))
            current = ""
            while True:
                limit = time.monotonic() + COLLECTOR_SECONDS
                reply = self._reply(limit if deadline is None else min(limit, deadline))
                if reply is None or "ended" in reply:
                    break
                if "collecting" in reply:
                    current = reply["collecting"]
                if "metrics" in reply:
                    return (
                        from_dict(reply["metrics"], dict[str, Metric]),
                        from_dict(reply["flags"], list[Flag]),
                    )
            self.close()
            timed_out = deadline is not None and time.monotonic() >= deadline
            if timed_out:
                reason = "the run reached its time limit (--timeout)"
            elif reply is None:
                reason = f"timed out after {COLLECTOR_SECONDS:g} s"
            else:
                reason = "it ended the process that it ran in"
            if timed_out or not current:
                # Nothing more can be collected, and each metric says so.
                reason = reason if timed_out else "the process for metric collectors could not be started"
                failed = {chosen.card.address: reason for chosen in plan.metrics}
                break
            failed[current] = reason
        return collect(record, plan.metrics, failed=failed)

    def close(self) -> None:
        """End the process. It is started again if it is needed again."""
        if self._process is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, 9)
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()
        self._process.wait()
        os.close(self._replies)
        self._process = None

    def _send(self, message: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # the parent notices the missing reply
            self._process.stdin.write(_LENGTH.pack(len(message)) + message)
            self._process.stdin.flush()

    def _reply(self, deadline: float) -> dict[str, Any] | None:
        """The next reply; {"ended": True} if the process is gone, None at the deadline."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._replies, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                if not selector.select(max(deadline - time.monotonic(), 0.0)):
                    return None
                chunk = os.read(self._replies, 1 << 16)
                if not chunk:
                    return {"ended": True}
                self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        reply: dict[str, Any] = json.loads(line)
        return reply


def main(arguments: list[str] | None = None) -> int:
    """The process: read the spec, then collect one record after the other until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m eflm.controller.collector_process")
    parser.add_argument("--replies", type=int, required=True, help="descriptor of the pipe for replies")
    parser.add_argument("--parent", type=int, required=True, help="process that must stay alive")
    options = parser.parse_args(arguments)
    die_with(options.parent)
    descriptor = options.replies
    os.set_inheritable(descriptor, False)
    orders = sys.stdin.buffer
    with open(descriptor, "w", buffering=1) as replies:

        def reply(**message: Any) -> None:
            replies.write(json.dumps(message) + "\n")
            replies.flush()

        from eflm.planning.compose import compose
        from eflm.registry.discovery import load_plugins

        first = _next(orders)
        if first is None:
            return 0
        plan = compose(from_dict(json.loads(first), RunSpec), load_plugins())
        reply(ready=True)
        while (order := _next(orders)) is not None:
            record, failed = pickle.loads(order)
            metrics, flags = collect(
                record,
                plan.metrics,
                on_start=lambda chosen: reply(collecting=chosen.card.address),
                failed=failed,
            )
            reply(
                metrics={name: to_dict(metric) for name, metric in metrics.items()},
                flags=[to_dict(flag) for flag in flags],
            )
    return 0


def _next(stream: BinaryIO) -> bytes | None:
    header = stream.read(_LENGTH.size)
    if len(header) < _LENGTH.size:
        return None
    return stream.read(_LENGTH.unpack(header)[0])


if __name__ == "__main__":
    sys.exit(main())
