"""Events from a worker to the parent: one JSON document per line, on a separate pipe.

The worker writes with an EventWriter. The parent decodes each line and adds it to its event log. Standard output and
standard error are not used for events, because libraries print there.
"""

from __future__ import annotations

import json
import os
from typing import Any

import attrs

from eflm_schemas import convert


def decode(line: bytes) -> dict[str, Any]:
    """Return the event in a line. Raises ValueError for anything else, such as a line that a dying worker cut off."""
    event = json.loads(line)
    if not isinstance(event, dict) or "event" not in event:
        raise ValueError(f"not an event: {line[:80]!r}")
    return event


class EventWriter:
    """Writes events to the parent. Used in the worker, which exits if the parent has ended."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def send(self, event: str, /, **fields: Any) -> None:
        """Write one event. attrs instances become dictionaries, and other values unknown to JSON become strings."""
        self.send_many([{"event": event, **fields}])

    def send_many(self, events: list[dict[str, Any]]) -> None:
        """Write several events in one system call, which disturbs timed work less than one call for each."""
        lines = "".join(json.dumps(event, default=_plain) + "\n" for event in events)
        remaining = memoryview(lines.encode())
        try:
            while remaining:
                remaining = remaining[os.write(self._descriptor, remaining) :]
        except BrokenPipeError:
            os._exit(1)


def _plain(value: Any) -> Any:
    return convert.to_dict(value) if attrs.has(type(value)) else str(value)
