"""eflm from Python: the same compositions as the command line, for notebooks and scripts.

Re-exported by `eflm`; the heavy parts are imported by the call that needs them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eflm.errors import UsageError
from eflm.planning.compose import compose
from eflm.registry.discovery import load_plugins
from eflm.registry.registry import Registry
from eflm_schemas import RunResult, RunSpec, Techniques
from eflm_schemas.spec import ISOLATION

if TYPE_CHECKING:
    from torch import nn


def bench(
    model: str = "nano",
    *,
    attention: str | None = None,
    moe: str | None = None,
    peft: str | None = None,
    quant: str | None = None,
    stages: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    data: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    precision: float = 0.03,
    energy: str = "measured",
    region: str | None = None,
    processes: int = 1,
    isolation: str = ISOLATION,
    raw: bool = False,
    timeout: float | None = None,
    results: str | Path | None = None,
    modality: str | None = None,
) -> RunResult:
    """Run a composition in a fresh worker process and return its measurements, as `eflm bench` does.

    `settings` maps "plugin.option" and "stage.option" to values. `precision` is the half width of mean latency's 95%
    interval, over that mean, to measure requests to. `energy`, `region`, `processes` and `isolation` are as on the
    command line. `timeout` is in seconds. With `raw`, the result holds the time of every window. With `results`, a
    folder, the result is saved there too. A run that fails is a result with status "failed" and its reason; a request
    that cannot be raises UsageError.
    """
    from eflm.controller.run import run

    spec = request(
        model=model,
        modality=modality,
        techniques=Techniques(attention=attention, moe=moe, peft=peft, quant=quant),
        stages=(stages,) if isinstance(stages, str) else tuple(stages),
        settings=dict(settings or {}),
        data=None if data is None else str(data),
        device=device,
        seed=seed,
        precision=precision,
        energy=energy,
        region=region,
        processes=processes,
        isolation=isolation,
        raw=raw,
        timeout=timeout,
    )
    plan = compose(spec, load_plugins())
    return run(plan, results=None if results is None else Path(results), progress=None)


def build(
    model: str = "nano",
    *,
    attention: str | None = None,
    moe: str | None = None,
    peft: str | None = None,
    quant: str | None = None,
    settings: Mapping[str, Any] | None = None,
    data: str | Path | None = None,
    device: str = "cpu",
    seed: int = 0,
    modality: str | None = None,
    registry: Registry | None = None,
) -> nn.Module:
    """Build the composed model in this process: a plain model of its library, with the techniques put in.

    A preset gets random weights from `seed`, a pretrained model keeps its own. Without `peft` no adapter is
    added. `registry` may hold plugins of this process (`Registry.register`) besides the installed ones.
    Raises UsageError, DataError or ModelError.
    """
    from eflm.worker import assemble

    spec = request(
        model=model,
        modality=modality,
        techniques=Techniques(attention=attention, moe=moe, peft=peft, quant=quant),
        settings=dict(settings or {}),
        data=None if data is None else str(data),
        device=device,
        seed=seed,
    )
    return assemble.build(compose(spec, registry or load_plugins(), for_build=True))


def request(**fields: Any) -> RunSpec:
    """A RunSpec, with a value that cannot be explained as a UsageError. Also used by `eflm bench`."""
    try:
        return RunSpec(**fields)
    except (TypeError, ValueError) as error:
        raise UsageError(f"this request cannot be: {error.args[0] if error.args else error}") from None
