"""Builds a plan's model up to a stage: from scratch, from a pretrained model, or from checkpoints of earlier steps.

Techniques are applied in the order of the run: attention, mixture of experts, (pretraining), quantizer, adapter.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from eflm.errors import ModelError
from eflm.planning.plan import Chosen, Plan, technique_card
from eflm.registry.contracts import HasOutline, RestoresPacked, Workload, WorkloadRequest
from eflm.registry.kinds import TechniqueKind, technique_kinds
from eflm.worker import checkpoints
from eflm.worker import device as devices
from eflm.worker.memory import require_memory
from eflm.worker.techniques import Build

if TYPE_CHECKING:
    from torch import nn

#: The steps that write a checkpoint; they are the keys of `restore`.
PRETRAINED, QUANTIZED, FINETUNED = "pretrain", "quantize", "finetune"


def build(plan: Plan) -> nn.Module:
    """Build the composed model in this process, in evaluation mode. The random state of the caller does not change.

    Raises UsageError, DataError or ModelError.
    """
    devices.require(plan.spec.device)
    with devices.fork_random_state(plan.spec.device):
        model = assemble(Build(plan=plan, workload=prepare(plan)), "infer")
    return model.to(plan.spec.device).eval()


def prepare(plan: Plan) -> Workload:
    """Create the workload of the plan's modality, with its data and tokenizer but without a model."""
    request = WorkloadRequest(
        model=plan.spec.model,
        data=plan.spec.data,
        stages=plan.stages,
        seed=plan.spec.seed,
        device=plan.spec.device,
    )
    return cast(Workload, plan.modality.make().prepare(request))


def assemble(
    build: Build, stage: str, restore: Mapping[str, Path] | None = None, *, adapted: bool = True
) -> nn.Module:
    """Build the model for the start of `stage`. `restore`: folders of checkpoints by the step that wrote them.

    Without `adapted`, the techniques that fine-tuning requires are not applied; `adapt` applies them.
    """
    restore = restore or {}
    if QUANTIZED in restore:
        model = _packed(build, restore[QUANTIZED])
    elif PRETRAINED in restore:
        model = _read(build, restore[PRETRAINED])
    else:
        model = base_model(build)
    for chosen, row in _later(build.plan, stage):
        packed = QUANTIZED in restore and technique_card(chosen).compresses
        if not row.required_in and not packed:
            model = row.apply.resolve()(build, chosen, model)
    if adapted:
        model = adapt(build, stage, model)
    if FINETUNED in restore and stage == "infer":
        checkpoints.read(model, restore[FINETUNED], partial=True)
    return model


def adapt(build: Build, stage: str, model: nn.Module) -> nn.Module:
    """Apply the techniques that fine-tuning requires, and return the model."""
    for chosen, row in _later(build.plan, stage):
        if row.required_in:
            model = row.apply.resolve()(build, chosen, model)
    return model


def base_model(build: Build) -> nn.Module:
    """Build the model with the techniques that come before pretraining.

    The model is on the CPU, unless a quantizer loaded it on another device.
    """
    import torch

    plan = build.plan
    check_memory(build)
    # The initial weights of techniques must depend only on the seed.
    torch.manual_seed(plan.spec.seed)
    model = build.workload.build_model(from_scratch=plan.from_scratch, load_kwargs=load_kwargs(build))
    return _apply_early(build, model)


def load_kwargs(build: Build) -> Mapping[str, Any]:
    """Return the quantizer's arguments for `from_pretrained`; empty unless it quantizes weights while they are read."""
    if not build.plan.compresses_while_reading:
        return {}
    return build.quantizer().load_kwargs(build.device)


def outline(build: Build) -> nn.Module | None:
    """Build the model with its techniques and with parameters on the meta device; return None if that is not possible.

    Buffers are computed, because checkpoints do not contain all of them, for example not the rotary frequencies.
    """
    from accelerate import init_empty_weights

    with suppress(Exception), init_empty_weights(include_buffers=False):
        if isinstance(build.workload, HasOutline) and not build.plan.from_scratch:
            model = build.workload.outline()
        else:
            model = build.workload.build_model(from_scratch=True, load_kwargs={})
        return _apply_early(build, model, convert=False)
    return None


def check_memory(build: Build) -> None:
    """Raise ModelError before loading if the weights of a pretrained model do not fit into memory."""
    import torch

    plan = build.plan
    if plan.preset is not None:
        return
    model = None
    # On the meta device, buffers take no memory either. If the modality cannot build the model there, its size is
    # unknown and not checked.
    with suppress(Exception), torch.device("meta"):
        model = build.workload.build_model(from_scratch=True, load_kwargs={})
    if model is None:
        return
    if plan.from_scratch:
        width = 4.0
    elif plan.compresses_while_reading:
        assert plan.compressor is not None
        width = (technique_card(plan.compressor).stored_bits or 32) / 8
    else:
        width = 2.0  # 16 bits, as in nearly all checkpoints; one in float32 that does not fit fails later
    parameters = sum(parameter.numel() for parameter in model.parameters())
    require_memory(
        int(parameters * width), f"{plan.spec.model} has {parameters:,} parameters, which", plan.spec.device
    )


def _apply_early(build: Build, model: nn.Module, *, convert: bool = True) -> nn.Module:
    """Apply the techniques that come before pretraining."""
    from attrs import evolve

    early = build if convert else Build(plan=evolve(build.plan, from_scratch=True), workload=build.workload)
    for chosen in build.plan.applied_before("pretrain"):
        row = next(row for row in technique_kinds() if row.name == chosen.card.kind)
        model = row.apply.resolve()(early, chosen, model)
    return model


def _read(build: Build, folder: Path) -> nn.Module:
    """Build the model and read all of its weights from a checkpoint."""
    model = outline(build)
    if model is None:
        model = base_model(build)
    checkpoints.read(model, folder)
    return model


def _packed(build: Build, folder: Path) -> nn.Module:
    """Build the quantized model of a checkpoint without the full-precision model in memory."""
    quantizer = build.quantizer()
    model = outline(build)
    if model is None:
        raise ModelError(
            f"{build.plan.spec.model} cannot be built without its weights, so its quantized weights cannot be read back"
        )
    tensors = checkpoints.tensors(folder)
    if isinstance(quantizer, RestoresPacked):
        model = quantizer.restore(model, build.targets(model), tensors, build.device)
    checkpoints.assign(model, tensors, folder)
    return model.to(build.device)


def _later(plan: Plan, stage: str) -> list[tuple[Chosen, TechniqueKind]]:
    """Return the techniques that are applied after pretraining and before `stage`, with the rows of their kinds."""
    early = plan.applied_before("pretrain")
    rows = {row.name: row for row in technique_kinds()}
    return [(chosen, rows[chosen.card.kind]) for chosen in plan.applied_before(stage) if chosen not in early]
