"""What a user asks for: a model, the techniques to compose, the stages to run."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

from attrs import field, frozen, validators

#: The stages of a run, in their order.
STAGES: tuple[str, ...] = ("pretrain", "finetune", "infer")

#: How a worker process starts: forked from a server, as a new interpreter, or, for debugging, not at all.
ISOLATIONS: tuple[str, ...] = ("forkserver", "spawn", "none")
#: macOS libraries do not survive a fork.
ISOLATION = "forkserver" if sys.platform == "linux" else "spawn"


@frozen(kw_only=True)
class RunSpec:
    """Everything that decides what a run does, and nothing else.

    `model` is a preset, a Hub id or a local folder; `modality` None means the modality that the model belongs to.
    `techniques` maps a flag ("attention", "moe", "quant", "peft") to a plugin name; a flag that is missing leaves that
    part of the model as it is. `stages` empty means the default stages for the model. `settings` maps "plugin.option"
    and "stage.option" to values, as `--set` does. `threads` None means one per physical core. `target_ci` is the
    relative half width of the 95% interval of the mean latency to measure to: 0.03 is ±3%. `power_model` is
    "measured", "estimate" or "estimate:IDLE:BUSY" in W, for machines without an energy counter. `carbon_region` is a
    country's three-letter code, for gCO2e. `processes` is the world size of data-parallel training. `isolation` is one
    of ISOLATIONS. `keep_timings` keeps the seconds of every window in the result. `timeout` is in seconds.
    """

    model: str = "nano"
    modality: str | None = None
    techniques: Mapping[str, str] = field(factory=dict)
    stages: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(factory=dict)
    data: str | None = None
    device: str = "auto"
    threads: int | None = field(default=None, validator=validators.optional(validators.ge(1)))
    seed: int = field(default=0, validator=validators.and_(validators.ge(0), validators.lt(2**63)))
    target_ci: float = field(default=0.03, validator=validators.and_(validators.gt(0), validators.le(1)))
    power_model: str = "measured"
    carbon_region: str | None = None
    processes: int = field(default=1, validator=validators.ge(1))
    isolation: str = field(default=ISOLATION, validator=validators.in_(ISOLATIONS))
    keep_timings: bool = False
    timeout: float | None = field(
        default=None,
        validator=validators.optional(validators.and_(validators.gt(0), validators.lt(math.inf))),
    )
