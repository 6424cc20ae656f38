"""The steps that put techniques into a model, one per kind. The table in `eflm.registry.kinds` names them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from attrs import asdict, define, field

from eflm.errors import ModelError, PluginError
from eflm.planning.plan import Chosen, Plan, technique_card
from eflm.registry.calls import called
from eflm.registry.contracts import Adapter, Host, Quantizer, Targets, Workload
from eflm_schemas import AttentionCard, MoeRouterCard

if TYPE_CHECKING:
    from torch import nn


@define
class Build:
    """A model being built: the plan, the workload, and the objects that techniques left for the stages."""

    plan: Plan
    workload: Workload
    adapter: Adapter | None = field(default=None, init=False)
    adapted_by: Chosen | None = field(default=None, init=False)

    @property
    def device(self) -> str:
        """The device of this process."""
        return self.plan.spec.device

    def host(self, chosen: Chosen) -> Host:
        """The workload's host; ModelError if it has none and the technique needs one."""
        if self.workload.host is None:
            raise ModelError(
                f"{chosen.card.address} cannot be put into {self.plan.spec.model}: the modality "
                f"{self.plan.modality.card.name} has no host for techniques; leave the technique out, or choose a "
                "model of another modality"
            )
        return self.workload.host

    def targets(self, model: nn.Module) -> Targets:
        """Where adapters and quantizers may act; nowhere if the modality has no host."""
        if self.workload.host is None:
            return Targets(layers=(), linears=(), attention_linears=())
        return self.workload.host.targets(model)

    def quantizer(self) -> Quantizer:
        """The plan's quantizer."""
        assert self.plan.compressor is not None
        return cast(Quantizer, self.plan.compressor.make())


def replace_attention(build: Build, chosen: Chosen, model: nn.Module) -> nn.Module:
    """Put the attention variant at every attention site."""
    card = cast(AttentionCard, chosen.card)
    build.host(chosen).replace_attention(
        model,
        chosen.make,
        convert=not build.plan.from_scratch,
        recipe=_recipe(chosen),
        plain=card.plain_checkpoint,
    )
    return model


def replace_mlps(build: Build, chosen: Chosen, model: nn.Module) -> nn.Module:
    """Put experts behind the router at every feed-forward site; a dense router changes nothing."""
    if not cast(MoeRouterCard, chosen.card).dense:
        build.host(chosen).replace_mlps(
            model, chosen.make, convert=not build.plan.from_scratch, recipe=_recipe(chosen)
        )
    return model


def quantize(build: Build, chosen: Chosen, model: nn.Module) -> nn.Module:
    """Store the weights at the bit width, on the build's device."""
    quantizer: Quantizer = chosen.make()
    with called(chosen.label, "apply"):
        quantized = quantizer.apply(model, build.targets(model), build.device)
    return _module(chosen, quantized)


def adapt(build: Build, chosen: Chosen, model: nn.Module) -> nn.Module:
    """Add the adapter's parameters, or choose which of the model's own are trained."""
    if technique_card(chosen).needs_host:
        build.host(chosen)
    adapter: Adapter = chosen.make()
    build.adapter, build.adapted_by = adapter, chosen
    with called(chosen.label, "apply"):
        adapted = adapter.apply(model, build.targets(model))
    return _module(chosen, adapted)


def _module(chosen: Chosen, returned: Any) -> nn.Module:
    from torch import nn

    if not isinstance(returned, nn.Module):
        raise PluginError(f"{chosen.label} returned {type(returned).__name__} from apply, not an nn.Module")
    return returned


def _recipe(chosen: Chosen) -> dict[str, Any]:
    """What a saved model must say about the plugin that it needs to load again."""
    return {
        chosen.card.kind: {
            "plugin": chosen.card.name,
            "distribution": chosen.origin.distribution,
            "version": chosen.origin.version,
            "options": {} if chosen.options is None else asdict(chosen.options),
        }
    }
