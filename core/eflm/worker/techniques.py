"""Applies techniques to a model, with one function per kind. The table in `eflm.registry.kinds` refers to them."""

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
    """The context in which a model is built: the plan, the workload, and the adapter after it was applied."""

    plan: Plan
    workload: Workload
    adapter: Adapter | None = field(default=None, init=False)
    adapted_by: Chosen | None = field(default=None, init=False)

    @property
    def device(self) -> str:
        """The device of this process."""
        return self.plan.spec.device

    def host(self, chosen: Chosen) -> Host:
        """Return the workload's host. Raises ModelError if it has none."""
        if self.workload.host is None:
            raise ModelError(
                f"{chosen.card.address} cannot be put into {self.plan.spec.model}: the modality "
                f"{self.plan.modality.card.name} has no host for techniques; leave the technique out, or choose a "
                "model of another modality"
            )
        return self.workload.host

    def targets(self, model: nn.Module) -> Targets:
        """Return the layers on which adapters and quantizers act; none if the modality has no host."""
        if self.workload.host is None:
            return Targets(layers=(), linears=(), attention_linears=())
        return self.workload.host.targets(model)

    def quantizer(self) -> Quantizer:
        """Create the plan's quantizer."""
        assert self.plan.compressor is not None
        return cast(Quantizer, self.plan.compressor.make())


def replace_attention(build: Build, chosen: Chosen, model: nn.Module) -> nn.Module:
    """Replace the attention of all blocks by the variant."""
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
    """Replace the feed-forward of blocks by a mixture of experts with the router. A dense router changes nothing."""
    if not cast(MoeRouterCard, chosen.card).dense:
        build.host(chosen).replace_mlps(
            model, chosen.make, convert=not build.plan.from_scratch, recipe=_recipe(chosen)
        )
    return model


def quantize(build: Build, chosen: Chosen, model: nn.Module) -> nn.Module:
    """Apply the quantizer, which also moves the model to the device."""
    quantizer: Quantizer = chosen.make()
    with called(chosen.label, "apply"):
        quantized = quantizer.apply(model, build.targets(model), build.device)
    return _module(chosen, quantized)


def adapt(build: Build, chosen: Chosen, model: nn.Module) -> nn.Module:
    """Apply the adapter, which adds parameters or chooses which parameters of the model are trained."""
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
    """Return the description of the plugin that a saved model contains, so that it can be loaded again."""
    return {
        chosen.card.kind: {
            "plugin": chosen.card.name,
            "distribution": chosen.origin.distribution,
            "version": chosen.origin.version,
            "options": {} if chosen.options is None else asdict(chosen.options),
        }
    }
