"""The line between worker and watcher: one JSON document a line, on a pipe of its own.

The worker writes with an EventWriter; the watcher decodes each line and hands it to its journal. Standard output and
standard error stay free for whatever a library prints.
"""

from __future__ import annotations

import json
import os
from typing import Any

import attrs

from eflm_schemas import convert


def decode(line: bytes) -> dict[str, Any]:
    """One event. ValueError for a line that is none, such as one cut short by the worker's death."""
    event = json.loads(line)
    if not isinstance(event, dict) or "event" not in event:
        raise ValueError(f"not an event: {line[:80]!r}")
    return event


class EventWriter:
    """Writes events in the worker. A watcher that has gone takes the worker with it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def send(self, event: str, /, **fields: Any) -> None:
        """Write one event; attrs instances become dictionaries, and what JSON does not know its text."""
        self.send_many([{"event": event, **fields}])

    def send_many(self, events: list[dict[str, Any]]) -> None:
        """Write several events in one system call, so that a busy loop is disturbed once."""
        lines = "".join(json.dumps(event, default=_plain) + "\n" for event in events)
        remaining = memoryview(lines.encode())
        try:
            while remaining:
                remaining = remaining[os.write(self._descriptor, remaining) :]
        except BrokenPipeError:
            os._exit(1)


def _plain(value: Any) -> Any:
    return convert.to_dict(value) if attrs.has(type(value)) else str(value)
