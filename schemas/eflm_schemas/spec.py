"""What a user asks for: a model, the techniques to compose, the stages to run."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

from attrs import field, frozen, validators

#: The paper's three axes, in the order in which a run takes them.
STAGES: tuple[str, ...] = ("pretrain", "finetune", "infer")


#: How a run is kept apart from others: a fork of a server, a new interpreter, or, for debugging, not at all.
ISOLATIONS: tuple[str, ...] = ("forkserver", "spawn", "none")
#: macOS' libraries do not survive a fork.
ISOLATION = "forkserver" if sys.platform == "linux" else "spawn"


@frozen(kw_only=True)
class Techniques:
    """One plugin name per kind of technique; None leaves that part as the model has it."""

    attention: str | None = None
    moe: str | None = None
    peft: str | None = None
    quant: str | None = None


@frozen(kw_only=True)
class RunSpec:
    """One cell of a study: everything that decides what a run does, and nothing else.

    `model` is a preset, a Hub id or a local folder; `modality` None is the one that the
    model belongs to. `stages` empty means the default for that model.
    `settings` maps "plugin.option" and "stage.option" to values, as `--set` does. `timeout` is in seconds.
    `precision` is the half width of the mean latency's 95% interval to aim for, over that mean: 0.03 is ±3%.
    `energy` is "measured", "estimate" or "estimate:IDLE:BUSY" in W, for machines that measure none; `region` is a
    country's three letters, for gCO2e. `processes` train together, each on batches of its own, with their gradients
    averaged. `isolation` is one of ISOLATIONS. With `raw`, the result holds the time of every window.
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
