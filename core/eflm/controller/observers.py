"""Calls the observers of a run between stages. An observer that fails or hangs is flagged and not called again."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from contextlib import redirect_stdout
from typing import Any

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
        failure: list[str] = [f"timed out after {OBSERVER_SECONDS:g} s"]

        def run() -> None:
            try:
                call()
                failure.clear()
            except BaseException as error:
                failure[:] = [f"{type(error).__name__}: {' '.join(str(error).split())}"]

        # With --json, standard output must contain nothing but the document.
        with redirect_stdout(sys.stderr):
            thread = threading.Thread(target=run, name=f"observer {label}", daemon=True)
            thread.start()
            thread.join(OBSERVER_SECONDS)
        if failure:
            detail = f"{label} failed in {what}: {failure[0]}; it was not called again"
            self.flags.append(Flag(name="observer_failed", detail=detail))
        return not failure


def _make(entry: Entry) -> Any:
    config = config_class(entry)
    return entry.card.factory.resolve()(None if config is None else config())
