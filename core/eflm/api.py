"""eflm from Python: the same compositions as the command line, for notebooks and scripts.

Re-exported by `eflm`; the heavy parts are imported by the call that needs them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eflm.planning.compose import compose
from eflm.planning.request import request
from eflm.registry.discovery import load_plugins
from eflm.registry.registry import Registry
from eflm_schemas import RunResult
from eflm_schemas.spec import ISOLATION

if TYPE_CHECKING:
    from torch import nn


def bench(
    model: str = "nano",
    *,
    stages: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    data: str | Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    seed: int = 0,
    target_ci: float = 0.03,
    power_model: str = "measured",
    carbon_region: str | None = None,
    processes: int = 1,
    isolation: str = ISOLATION,
    keep_timings: bool = False,
    timeout: float | None = None,
    results: str | Path | None = None,
    reuse: bool = False,
    save: str | Path | None = None,
    keep_checkpoints: bool = False,
    modality: str | None = None,
    **techniques: str | None,
) -> RunResult:
    """Run a composition in fresh worker processes and return its measurements, as `eflm bench` does.

    Techniques are keywords: `attention=`, `moe=`, `quant=`, `peft=`. `settings` maps "plugin.option" and "stage.option"
    to values. All other arguments are as on the command line. With `results`, a folder, everything is saved there. A
    run that fails is a result with status "failed" and its reason; a request that is not possible raises UsageError.
    """
    from eflm.controller.run import run
    from eflm.controller.run_options import RunOptions

    spec = request(
        model=model,
        modality=modality,
        techniques=techniques,
        stages=(stages,) if isinstance(stages, str) else tuple(stages),
        settings=dict(settings or {}),
        data=None if data is None else str(data),
        device=device,
        threads=threads,
        seed=seed,
        target_ci=target_ci,
        power_model=power_model,
        carbon_region=carbon_region,
        processes=processes,
        isolation=isolation,
        keep_timings=keep_timings,
        timeout=timeout,
    )
    registry = load_plugins()
    options = RunOptions(
        results=None if results is None else Path(results),
        reuse=reuse,
        keep_checkpoints=keep_checkpoints,
        save=None if save is None else Path(save),
    )
    return run(compose(spec, registry), registry, options)


def build(
    model: str = "nano",
    *,
    settings: Mapping[str, Any] | None = None,
    data: str | Path | None = None,
    device: str = "cpu",
    seed: int = 0,
    modality: str | None = None,
    registry: Registry | None = None,
    **techniques: str | None,
) -> nn.Module:
    """Build the composed model in this process: a plain model of its library with the techniques in it.

    A preset gets random weights from `seed`, a pretrained model keeps its own. Without `peft=` no adapter is added.
    `registry` may hold plugins of this process (`Registry.register`) in addition to the installed ones.
    Raises UsageError, DataError or ModelError.
    """
    from eflm.worker import assemble

    spec = request(
        model=model,
        modality=modality,
        techniques=techniques,
        settings=dict(settings or {}),
        data=None if data is None else str(data),
        device=device,
        seed=seed,
    )
    return assemble.build(compose(spec, registry or load_plugins(), for_build=True))
