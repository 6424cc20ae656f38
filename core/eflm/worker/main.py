"""The entry point of a worker process: reads an order from standard input and sends events to a pipe."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import NoReturn

from eflm.errors import EflmError
from eflm.lifetime import die_with
from eflm.protocol.events import EventWriter
from eflm.protocol.order import WorkerOrder


def main(arguments: list[str] | None = None) -> int:
    """Carry out the order on standard input. Return the exit status: 0 if the step is done, 1 if an error was sent."""
    parser = argparse.ArgumentParser(prog="python -m eflm.worker.main")
    parser.add_argument("--events", type=int, required=True, help="descriptor of the pipe for events")
    parser.add_argument("--parent", type=int, required=True, help="process that must stay alive")
    options = parser.parse_args(arguments)
    die_with(options.parent)
    os.set_inheritable(options.events, False)

    def order() -> WorkerOrder:
        received = receive(sys.stdin.readline())
        threading.Thread(target=_die_with_standard_input, daemon=True).start()
        return received

    return carry_out(order, EventWriter(options.events))


def carry_out(order: Callable[[], WorkerOrder], events: EventWriter) -> int:
    """Carry out the order that `order` returns, and send "done" or the error. Return 0 or 1 accordingly."""
    from eflm.worker.run_step import run_step

    try:
        run_step(order(), events)
    except EflmError as error:
        traceback.print_exc()
        events.send("failed", kind=type(error).__name__, reason=str(error), time=time.monotonic_ns())
    except Exception as error:
        traceback.print_exc()
        events.send("failed", kind=type(error).__name__, reason=_explain(error), time=time.monotonic_ns())
    else:
        events.send("done")
        return 0
    return 1


def receive(line: str) -> WorkerOrder:
    """Parse an order from one line of JSON."""
    from eflm_schemas.convert import from_dict

    return from_dict(json.loads(line), WorkerOrder)


def run_and_exit(arguments: list[str] | None = None) -> NoReturn:
    """Call `main` and exit without shutting down the interpreter, which is slow and can crash in native libraries."""
    status = main(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _die_with_standard_input() -> None:
    """Exit when standard input closes, which happens when the parent process ends."""
    sys.stdin.read()
    os._exit(1)


def _explain(error: Exception) -> str:
    """Describe an unexpected error in one sentence. The traceback is in the log."""
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return (
            "the worker ran out of memory; a smaller batch (--set STAGE.batch_size=...), a smaller model or a "
            "smaller bit width (eflm list-plugins --kind quantizer) may fit"
        )
    text = str(error).strip().splitlines()
    return f"the worker stopped on {type(error).__name__}" + (f": {text[0]}" if text else "")


if __name__ == "__main__":
    run_and_exit()
