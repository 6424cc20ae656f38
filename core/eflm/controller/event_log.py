"""The event log: what the worker has sent so far, stage by stage. `eflm.controller.run` keeps it in the parent."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field

from eflm.protocol.record import Compression, ModelFacts, Window
from eflm_schemas import Flag, Metric
from eflm_schemas.convert import from_dict


@define(kw_only=True)
class StageJournal:
    """What the worker told of one stage. `end` stays None for a stage that did not finish."""

    begin: int
    end: int | None = None
    windows: list[Window] = field(factory=list)
    model: ModelFacts | None = None
    dtype: str = "unknown"
    peak_flops: float | None = None
    peak_source: str = "the stage ended before a peak was known"
    quality: dict[str, Metric] = field(factory=dict)
    compression: Compression | None = None
    facts: dict[str, Any] = field(factory=dict)
    artifacts: dict[str, bytes] = field(factory=dict)  #: files to be saved beside the result, by name


@define
class Failure:
    """Why the worker gave up, in its own words. `kind` is the error's class."""

    kind: str
    reason: str
    time: int  #: CLOCK_MONOTONIC nanoseconds


class Journal:
    """Takes events one by one. `on_device` is called once the worker has told which `device` it uses."""

    def __init__(
        self,
        *,
        on_device: Callable[[], None],
        on_progress: Callable[[str, int, int], None] | None,
    ) -> None:
        self._on_device = on_device
        self._on_progress = on_progress
        self.stages: dict[str, StageJournal] = {}
        self.device: Mapping[str, Any] = {}
        self.facts: dict[str, Any] = {}
        self.flags: list[Flag] = []
        self.failure: Failure | None = None
        self.done = False
        self._stage: str | None = None

    @property
    def stage(self) -> str | None:
        """The stage that is under way."""
        return self._stage

    def note(self, event: dict[str, Any]) -> None:
        """Take one event down. ValueError for one that is not understood."""
        match event:
            case {"event": "window", "window": window}:
                self._current.windows.append(from_dict(window, Window))
            case {"event": "progress", "stage": stage, "done": done, "total": total}:
                if self._on_progress is not None:
                    self._on_progress(stage, done, total)
            case {"event": "stage_begin", "stage": stage, "time": begin}:
                self._stage = stage
                self.stages[stage] = StageJournal(begin=begin)
            case {"event": "stage_end", "stage": stage, "time": end}:
                self.stages[stage].end = end
                self._stage = None
            case {
                "event": "model",
                "model": model,
                "dtype": dtype,
                "peak_flops": flops,
                "peak_source": source,
            }:
                stage = self._current
                stage.model, stage.dtype = from_dict(model, ModelFacts), dtype
                stage.peak_flops, stage.peak_source = flops, source
            case {"event": "quality", "quality": quality}:
                self._current.quality.update(from_dict(quality, dict[str, Metric]))
            case {"event": "artifact", "name": name, "content": content}:
                self._current.artifacts[_plain_name(name)] = base64.b64decode(content, validate=True)
            case {"event": "compression", "compression": compression}:
                self._current.compression = from_dict(compression, Compression)
            case {"event": "stage_facts", "facts": facts}:
                self._current.facts.update(facts)
            case {"event": "facts", "facts": facts}:
                self.facts.update(facts)
            case {"event": "flag", "flag": flag}:
                self.flags.append(from_dict(flag, Flag))
            case {"event": "device", **device}:
                self.device = device
                self._on_device()
            case {"event": "failed", "kind": kind, "reason": reason, "time": time}:
                self.failure = Failure(kind, reason, time)
            case {"event": "done"}:
                self.done = True
            case _:
                raise ValueError(f"not an event that is known: {event!r}")

    @property
    def _current(self) -> StageJournal:
        if self._stage is None:
            raise ValueError("an event that belongs to a stage came outside of one")
        return self.stages[self._stage]


def _plain_name(name: str) -> str:
    """The name of a file and not a way to one: it will stand in the folder of results."""
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name):
        raise ValueError(f"an artifact is named like samples.png, not {name!r}")
    return name
