"""Calls metric collectors in a separate process, which is killed if a collector hangs.

The parent process uses `CollectorProcess`. `python -m eflm.controller.collector_process` is the separate process. Its
standard output is redirected to standard error, so that the output of collectors is never mixed into a JSON document of
the parent.
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

#: Deadline of each collector. Records are a few megabytes, so a collector that takes longer hangs.
COLLECTOR_SECONDS = 60.0
_LENGTH = struct.Struct(">Q")


class CollectorProcess:
    """Collects the metrics of each stage. The process is started for the first stage, and again if it was killed."""

    def __init__(self, spec: RunSpec) -> None:
        self._spec = spec
        self._process: subprocess.Popen[bytes] | None = None
        self._replies = -1
        self._rest = b""

    def start(self) -> None:
        """Start the process, without waiting for its imports. Call it early: imports would disturb a measurement."""
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

    def wait_until_ready(self, deadline: float | None = None) -> None:
        """Wait until the imports are done, the process has ended, or `deadline` (time.monotonic) has passed."""
        limit = time.monotonic() + COLLECTOR_SECONDS
        self._reply(limit if deadline is None else min(limit, deadline))

    def collect(
        self, record: StageRecord, plan: Plan, deadline: float | None = None
    ) -> tuple[dict[str, Metric], list[Flag]]:
        """Return metrics and flags; see `eflm.controller.collect.collect`.

        A collector fails if it takes longer than COLLECTOR_SECONDS or until `deadline` (time.monotonic), or if it ends
        the process. The process is then started again for the other collectors.
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
                # No collector can be called any more, so all metrics become unavailable with this reason.
                reason = reason if timed_out else "the process for metric collectors could not be started"
                failed = {chosen.card.address: reason for chosen in plan.metrics}
                break
            failed[current] = reason
        return collect(record, plan.metrics, failed=failed)

    def close(self) -> None:
        """End the process. The next call of `start` or `collect` starts it again."""
        if self._process is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, 9)
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()
        self._process.wait()
        os.close(self._replies)
        self._rest = b""  # of a reply that the process did not finish
        self._process = None

    def _send(self, message: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # the process has ended; `_reply` reports that
            self._process.stdin.write(_LENGTH.pack(len(message)) + message)
            self._process.stdin.flush()

    def _reply(self, deadline: float) -> dict[str, Any] | None:
        """Return the next reply; {"ended": True} if the process has ended, None at the deadline."""
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
    """Read the spec from standard input, then collect the metrics of each record until standard input ends."""
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
