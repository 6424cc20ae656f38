"""Calls the observers of a run between stages. An observer that fails or hangs is flagged and not called again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from eflm.controller.time_limit import call_within
from eflm.planning.options import config_class
from eflm.registry.entry import Entry
from eflm_schemas import Flag

#: Deadline of each call, so that an observer cannot stop the run.
OBSERVER_SECONDS = 10.0


class Observers:
    """The observers of one run. A call takes at most OBSERVER_SECONDS for each observer."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.flags: list[Flag] = []
        self._observers: dict[str, Any] = {}
        for entry in entries:
            if entry.status != "ready":
                continue
            label = f"{entry.card.address} ({entry.origin.distribution} {entry.origin.version})"
            made: list[Any] = []
            if self._guarded(label, "factory", lambda entry=entry, made=made: made.append(_make(entry))):
                self._observers[label] = made[0]

    def notify(self, event: str, *arguments: Any) -> None:
        """Call the method `event` of every observer."""
        for label, observer in list(self._observers.items()):
            if not self._guarded(label, event, lambda o=observer: getattr(o, event)(*arguments)):
                del self._observers[label]

    def _guarded(self, label: str, what: str, call: Any) -> bool:
        """Return whether `call` returned in time without an exception; add a flag if not."""
        reason = call_within(OBSERVER_SECONDS, f"observer {label}", call).reason
        if reason:
            detail = f"{label} failed in {what}: {reason}; it was not called again"
            self.flags.append(Flag(name="observer_failed", detail=detail))
        return not reason


def _make(entry: Entry) -> Any:
    config = config_class(entry)
    return entry.card.factory.resolve()(None if config is None else config())
