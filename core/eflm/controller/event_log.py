"""The event log: what one worker has sent about its step."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field

from eflm.protocol.record import ModelFacts, Window
from eflm_schemas import Flag, Metric
from eflm_schemas.convert import from_dict

#: Called with a stage, the work that is done and the total.
Progress = Callable[[str, int, int], None]


@define
class Failure:
    """Why the worker gave up. `kind` is the error's class."""

    kind: str
    reason: str
    time: int  #: CLOCK_MONOTONIC nanoseconds


@define(kw_only=True)
class EventLog:
    """Takes events one by one. `on_device` is called once the worker has described its device."""

    on_device: Callable[[], None] = field(default=lambda: None)
    on_progress: Progress | None = None
    device: Mapping[str, Any] = field(factory=dict)
    run_facts: dict[str, Any] = field(factory=dict)  #: of data, tokenizer, architecture
    facts: dict[str, Any] = field(factory=dict)  #: of the step
    flags: list[Flag] = field(factory=list)
    begin: int | None = None  #: of the stage, CLOCK_MONOTONIC nanoseconds
    end: int | None = None  #: None for a stage that did not finish
    windows: list[Window] = field(factory=list)
    model: ModelFacts | None = None
    dtype: str = "unknown"
    peak_flops: float | None = None
    peak_source: str = "the stage ended before a peak was known"
    quality: dict[str, Metric] = field(factory=dict)
    artifacts: dict[str, bytes] = field(factory=dict)  #: files to save next to the result, by name
    unsaved: str | None = None  #: why the model could not be saved to the folder of --save
    failure: Failure | None = None
    done: bool = False

    def add(self, event: dict[str, Any]) -> None:
        """Record one event. ValueError for one that is not understood."""
        match event:
            case {"event": "window", "window": window}:
                self.windows.append(from_dict(window, Window))
            case {"event": "progress", "stage": stage, "done": done, "total": total}:
                if self.on_progress is not None:
                    self.on_progress(stage, done, total)
            case {"event": "stage_begin", "time": begin}:
                self.begin = begin
            case {"event": "stage_end", "time": end}:
                self.end = end
            case {
                "event": "model",
                "model": model,
                "dtype": dtype,
                "peak_flops": flops,
                "peak_source": source,
            }:
                self.model, self.dtype = from_dict(model, ModelFacts), dtype
                self.peak_flops, self.peak_source = flops, source
            case {"event": "quality", "quality": quality}:
                self.quality.update(from_dict(quality, dict[str, Metric]))
            case {"event": "artifact", "name": name, "content": content}:
                self.artifacts[_file_name(name)] = base64.b64decode(content, validate=True)
            case {"event": "stage_facts", "facts": facts}:
                self.facts.update(facts)
            case {"event": "facts", "facts": facts}:
                self.run_facts.update(facts)
            case {"event": "flag", "flag": flag}:
                self.flags.append(from_dict(flag, Flag))
            case {"event": "device", **device}:
                self.device = device
                self.on_device()
            case {"event": "unsaved", "reason": reason}:
                self.unsaved = reason
            case {"event": "failed", "kind": kind, "reason": reason, "time": time}:
                self.failure = Failure(kind, reason, time)
            case {"event": "done"}:
                self.done = True
            case _:
                raise ValueError(f"unknown event: {event!r}")


def _file_name(name: str) -> str:
    """A plain file name, since the file is written into the results folder. ValueError for a path."""
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name):
        raise ValueError(f"an artifact needs a plain file name such as samples.png, not {name!r}")
    return name
