"""The events that one worker sent during a stage. Runs in the parent process.

The steps `quantize` and `reference` of a chain send the same events as a stage.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field

from eflm.protocol.record import ModelFacts, Window
from eflm_schemas import Flag, Metric
from eflm_schemas.convert import from_dict

#: Called with the name of a stage, the amount of work done, and the total amount.
Progress = Callable[[str, int, int], None]


@define
class Failure:
    """The error that a worker reported before it ended."""

    kind: str  #: name of the error's class
    reason: str
    time: int  #: CLOCK_MONOTONIC nanoseconds


@define(kw_only=True)
class EventLog:
    """Collects events. `on_device` is called when the worker has described its device."""

    on_device: Callable[[], None] = field(default=lambda: None)
    on_progress: Progress | None = None
    device: Mapping[str, Any] = field(factory=dict)
    run_facts: dict[str, Any] = field(factory=dict)  #: about the data, the tokenizer and the architecture
    stage_facts: dict[str, Any] = field(factory=dict)  #: about the work of this stage
    flags: list[Flag] = field(factory=list)
    begin: int | None = None  #: CLOCK_MONOTONIC nanoseconds
    end: int | None = None  #: None if the stage did not finish
    windows: list[Window] = field(factory=list)
    model: ModelFacts | None = None
    dtype: str = "unknown"
    peak_flops: float | None = None
    peak_source: str = "the stage ended before a peak was known"
    quality: dict[str, Metric] = field(factory=dict)
    artifacts: dict[str, bytes] = field(factory=dict)  #: files to save next to the result, by name
    save_error: str | None = None  #: why the model could not be saved to the folder of --save
    failure: Failure | None = None
    done: bool = False

    def add(self, event: dict[str, Any]) -> None:
        """Add one event. Raises ValueError for an unknown event."""
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
                self.stage_facts.update(facts)
            case {"event": "run_facts", "facts": facts}:
                self.run_facts.update(facts)
            case {"event": "flag", "flag": flag}:
                self.flags.append(from_dict(flag, Flag))
            case {"event": "device", **device}:
                self.device = device
                if "openmp" in device:
                    self.run_facts["openmp"] = device["openmp"]
                self.on_device()
            case {"event": "save_error", "reason": reason}:
                self.save_error = reason
            case {"event": "failed", "kind": kind, "reason": reason, "time": time}:
                self.failure = Failure(kind, reason, time)
            case {"event": "done"}:
                self.done = True
            case _:
                raise ValueError(f"unknown event: {event!r}")


def _file_name(name: str) -> str:
    """Return `name`. Raises ValueError for a path, which could lead out of the results folder."""
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name):
        raise ValueError(f"an artifact needs a plain file name such as samples.png, not {name!r}")
    return name
