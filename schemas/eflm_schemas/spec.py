"""The request for a run: a model, the techniques to combine, the stages to run."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

from attrs import field, frozen, validators

#: The stages of a run, in order. They are the three axes of the paper.
STAGES: tuple[str, ...] = ("pretrain", "finetune", "infer")

#: How a run is isolated: in a fork of a server process, in a new interpreter, or, for debugging, not at all.
ISOLATIONS: tuple[str, ...] = ("forkserver", "spawn", "none")
#: The default. Libraries of macOS crash after a fork.
ISOLATION = "forkserver" if sys.platform == "linux" else "spawn"


@frozen(kw_only=True)
class Techniques:
    """One plugin name per kind of technique; None leaves that part of the model unchanged."""

    attention: str | None = None
    moe: str | None = None
    peft: str | None = None
    quant: str | None = None


@frozen(kw_only=True)
class RunSpec:
    """The complete description of one run.

    `model` is a preset, a Hub id or a local folder. `modality` None selects the modality of the model. Empty `stages`
    select the default stages of the model.
    `settings` maps "plugin.option" and "stage.option" to values, like `--set`. `timeout` is in seconds.
    `precision` is the target half-width of the 95% interval of the mean latency, relative to the mean: 0.03 is ±3%.
    `energy` is "measured", or "estimate" or "estimate:IDLE:BUSY" (in W) for machines without power sensors. `region` is
    the three-letter code of a country, for gCO2e. `processes` is the number of processes that train with data
    parallelism: each has its own batches, and the gradients are averaged. `isolation` is one of ISOLATIONS. With `raw`,
    the result contains the time of every window.
    """

    model: str = "nano"
    modality: str | None = None
    techniques: Techniques = field(factory=Techniques)
    stages: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(factory=dict)
    data: str | None = None
    device: str = "auto"
    seed: int = field(default=0, validator=validators.and_(validators.ge(0), validators.lt(2**63)))
    precision: float = field(default=0.03, validator=validators.and_(validators.gt(0), validators.le(1)))
    energy: str = "measured"
    region: str | None = None
    processes: int = field(default=1, validator=validators.ge(1))
    isolation: str = field(default=ISOLATION, validator=validators.in_(ISOLATIONS))
    raw: bool = False
    timeout: float | None = field(
        default=None,
        validator=validators.optional(validators.and_(validators.gt(0), validators.lt(math.inf))),
    )
