"""Puts a plan's model together, one function a step. The worker calls them between its stages; `build` calls them all.

The order is the one of a run: modality, attention, mixture of experts, (pretraining), quantizer, adapter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from attrs import asdict

from eflm.errors import ModelError
from eflm.planning.plan import Chosen, Plan
from eflm.registry.contracts import Adapter, Host, Quantizer, Targets, Workload, WorkloadRequest
from eflm.worker import device as devices
from eflm.worker.memory import require_memory
from eflm_schemas import AdapterCard, AttentionCard, ModalityCard, MoeRouterCard, QuantizerCard

if TYPE_CHECKING:
    from torch import nn


def build(plan: Plan) -> nn.Module:
    """The composed model in this process, in evaluation mode, with the caller's random state left as it was.

    Raises UsageError, DataError or ModelError.
    """
    plan = plan.with_device(devices.resolve(plan.spec.device))
    with devices.fork_random_state(plan.spec.device):
        workload = prepare(plan)
        model = base_model(plan, workload)
        if plan.quantizer is not None:
            model = quantize(plan, workload, model)
        if plan.adapter is not None:
            model, _ = adapt(plan, workload, model)
    return model.to(plan.spec.device).eval()


def prepare(plan: Plan) -> Workload:
    """The workload of the plan's modality: data read, tokenizer ready, nothing built yet."""
    request = WorkloadRequest(
        model=plan.spec.model,
        data=plan.spec.data,
        stages=plan.stages,
        seed=plan.spec.seed,
        device=plan.spec.device,
    )
    return cast(Workload, plan.modality.make().prepare(request))


def base_model(plan: Plan, workload: Workload) -> nn.Module:
    """The model with attention and mixture of experts replaced, on the CPU unless a quantizer loaded it elsewhere."""
    import torch

    check_memory(plan, workload)
    # Whatever a technique initialises shall depend on the run's seed and on nothing that happened before.
    torch.manual_seed(plan.spec.seed)
    model = workload.build_model(from_scratch=plan.from_scratch, load_kwargs=load_kwargs(plan))
    if plan.attention is not None:
        replace_attention(plan, _host(plan, workload, plan.attention), model)
    if plan.moe is not None:
        replace_mlps(plan, _host(plan, workload, plan.moe), model)
    return model


def check_memory(plan: Plan, workload: Workload) -> None:
    """ModelError when the weights of a pretrained model cannot fit, before they fill the memory that there is."""
    import torch

    if cast(ModalityCard, plan.modality.card).preset(plan.spec.model) is not None:
        return
    try:
        with torch.device("meta"):
            outline = workload.build_model(from_scratch=True, load_kwargs={})
    except (
        Exception
    ):  # a modality need not be able to build without memory; then the size is not known beforehand
        return
    if plan.from_scratch:
        width = 4.0
    elif quantizes_at_load(plan):
        assert plan.quantizer is not None
        width = cast(QuantizerCard, plan.quantizer.card).bits / 8
    else:
        width = (
            2.0  # what nearly every checkpoint stores; one in float32 that does not fit is still met later
        )
    parameters = sum(parameter.numel() for parameter in outline.parameters())
    what = f"{plan.spec.model} has {parameters:,} parameters, which"
    require_memory(int(parameters * width), what, plan.spec.device)


def quantizes_at_load(plan: Plan) -> bool:
    """Whether the quantizer sees the weights as they are read; otherwise it acts on the built model."""
    return bool(load_kwargs(plan))


def load_kwargs(plan: Plan) -> Mapping[str, Any]:
    """The quantizer's keywords for `from_pretrained`.

    Empty for random weights, and where attention or MLPs are to be replaced first: new layers have no
    quantized weights to take over.
    """
    replaced = plan.attention is not None or not (plan.moe is None or _keeps_dense(plan.moe))
    if plan.quantizer is None or plan.from_scratch or replaced:
        return {}
    quantizer: Quantizer = plan.quantizer.make()
    return quantizer.load_kwargs(plan.spec.device)


def replace_attention(plan: Plan, host: Host, model: nn.Module) -> None:
    """Put the plan's attention variant at every attention site."""
    chosen = plan.attention
    assert chosen is not None
    plain = cast(AttentionCard, chosen.card).plain_checkpoint
    host.replace_attention(
        model, chosen.make, convert=not plan.from_scratch, recipe=_recipe(chosen), plain=plain
    )


def replace_mlps(plan: Plan, host: Host, model: nn.Module) -> None:
    """Put experts behind the plan's router at every feed-forward site; a dense router changes nothing."""
    chosen = plan.moe
    assert chosen is not None
    if not _keeps_dense(chosen):
        host.replace_mlps(model, chosen.make, convert=not plan.from_scratch, recipe=_recipe(chosen))


def quantize(plan: Plan, workload: Workload, model: nn.Module) -> nn.Module:
    """The model at the plan's bit width, on the plan's device."""
    assert plan.quantizer is not None
    quantizer: Quantizer = plan.quantizer.make()
    return quantizer.apply(model, _targets(workload, model), plan.spec.device)


def adapt(plan: Plan, workload: Workload, model: nn.Module) -> tuple[nn.Module, Adapter]:
    """The model as the plan's adapter trains it, and the adapter."""
    chosen = plan.adapter
    assert chosen is not None
    if not cast(AdapterCard, chosen.card).trains_base:
        _host(plan, workload, chosen)
    adapter: Adapter = chosen.make()
    return adapter.apply(model, _targets(workload, model)), adapter


def _keeps_dense(moe: Chosen) -> bool:
    return cast(MoeRouterCard, moe.card).dense


def _host(plan: Plan, workload: Workload, chosen: Chosen) -> Host:
    if workload.host is None:
        raise ModelError(
            f"{chosen.card.address} cannot be put into {plan.spec.model}: the modality {plan.modality.card.name} "
            "has no host that would find the places in its models; leave the technique out, or choose another modality"
        )
    return workload.host


def _targets(workload: Workload, model: nn.Module) -> Targets:
    if workload.host is None:
        return Targets(layers=(), linears=(), attention_linears=())
    return workload.host.targets(model)


def _recipe(chosen: Chosen) -> dict[str, Any]:
    """What a saved model must say of the plugin that it needs to load again."""
    return {
        chosen.card.kind: {
            "plugin": chosen.card.name,
            "distribution": chosen.origin.distribution,
            "version": chosen.origin.version,
            "options": {} if chosen.options is None else asdict(chosen.options),
        }
    }
