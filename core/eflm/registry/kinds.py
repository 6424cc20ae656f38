"""The table of plugin kinds. Everything that depends on a kind is a row here; other code goes over the table.

To add a kind of technique: a card class (a subclass of `eflm_schemas.TechniqueCard`), one row in TECHNIQUES, and the
function that its `apply` names. The command line, the checks, the plan and the worker follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pluggy
from attrs import frozen

from eflm_schemas import (
    AdapterCard,
    AttentionCard,
    Card,
    CommandCard,
    MetricCard,
    ModalityCard,
    MoeRouterCard,
    ObserverCard,
    PowerSourceCard,
    QuantizerCard,
    Ref,
)

PROJECT = "eflm"


@frozen(kw_only=True)
class Kind:
    """A kind of plugin: its card, how lists call it, and what its hook is for."""

    card: type[Card]
    title: str  #: heading in lists
    doc: str  #: what an implementation of the hook returns, and what the card's factory must return
    aliases: tuple[str, ...] = ()  #: other words for it that users type

    @property
    def name(self) -> str:
        """As in "attention/nsa"."""
        return self.card.kind

    @property
    def hook(self) -> str:
        """The function of a manifest that returns cards of this kind."""
        return self.card.hook


@frozen(kw_only=True)
class TechniqueKind(Kind):
    """A kind of technique: something that a run puts into the model under test."""

    flag: str  #: the command-line option without its dashes, and the key of `RunSpec.techniques`
    help: str  #: of the option
    #: the step of a run that applies it: `apply(build, chosen, model) -> model`; see `eflm.worker.techniques`
    apply: Ref
    #: it is applied right before this stage, or, where the run has no such stage, before the next one
    before: str
    #: stages that need a technique of this kind; a run takes the default one if none was asked for
    required_in: tuple[str, ...] = ()


#: The kinds of technique, in the order in which a run applies them to the model.
TECHNIQUES: tuple[TechniqueKind, ...] = (
    TechniqueKind(
        card=AttentionCard,
        title="Attention variants",
        doc="""Offer attention variants.

A card's factory is called as `factory(geometry, options)`, once per attention site of the model, and returns an
`AttentionVariant`.""",
        flag="attention",
        help="Attention variant (default: the model's own).",
        apply=Ref("eflm.worker.techniques:replace_attention"),
        before="pretrain",
    ),
    TechniqueKind(
        card=MoeRouterCard,
        title="Mixture-of-experts routers",
        doc="""Offer routers for a mixture of experts.

A card's factory is called as `factory(geometry, options)`, once per feed-forward site, and returns a `MoeRouter`, or
None to keep that feed-forward dense.""",
        aliases=("router", "moe_router"),
        flag="moe",
        help="Mixture-of-experts router (default: the model's own feed-forwards).",
        apply=Ref("eflm.worker.techniques:replace_mlps"),
        before="pretrain",
    ),
    TechniqueKind(
        card=QuantizerCard,
        title="Quantizers (--quant)",
        doc="""Offer bit widths.

A card's factory is called as `factory(options)` and returns a `Quantizer`.""",
        aliases=("quant",),
        flag="quant",
        help="Bit width of the weights (default: the model's own).",
        apply=Ref("eflm.worker.techniques:quantize"),
        before="finetune",
    ),
    TechniqueKind(
        card=AdapterCard,
        title="Adapters (--peft)",
        doc="""Offer fine-tuning methods.

A card's factory is called as `factory(options)` and returns an `Adapter`.""",
        aliases=("peft",),
        flag="peft",
        help="Fine-tuning method (default: full, when fine-tuning runs).",
        apply=Ref("eflm.worker.techniques:adapt"),
        before="finetune",
        required_in=("finetune",),
    ),
)

_OTHERS: tuple[Kind, ...] = (
    Kind(
        card=ModalityCard,
        title="Modalities",
        doc="""Offer modalities: what models, data, loss, generation and quality mean for a kind of model.

A card's factory is called as `factory(options)` and returns a `Modality`.""",
        aliases=("modality_loader",),
    ),
    Kind(
        card=MetricCard,
        title="Metrics",
        doc="""Offer metrics, computed from the windows and samples of a stage after it has ended.

A card's factory is called as `factory(options)` and returns a `MetricCollector`. It runs in a process of its own
under a deadline, and it must not import torch.""",
        aliases=("metric_collector",),
    ),
    Kind(
        card=PowerSourceCard,
        title="Power sources",
        doc="""Offer sources of power and energy readings, which the parent process samples while a stage runs.

A card's factory is called as `factory(devices)`, with a `Device` for each process of the stage, and returns a
`PowerSource`, or a `NoEnergy` with the reason why there is none. It must not import torch.""",
        aliases=("power_source",),
    ),
    Kind(
        card=CommandCard,
        title="Commands",
        doc="""Offer commands of the command line.

A card's factory names a `click.Command`, which is imported when the command is called, so that `eflm --help` stays
fast. A command of ours takes precedence over another distribution's of the same name.""",
    ),
    Kind(
        card=ObserverCard,
        title="Observers",
        doc="""Offer observers of runs, such as experiment trackers.

A card's factory is called as `factory(options)` and returns an `Observer`. It is called in the parent process, never
during a measurement, and under a deadline; what it raises becomes a flag.""",
    ),
)


def technique_kinds() -> tuple[TechniqueKind, ...]:
    """The rows of TECHNIQUES. Other modules call this instead of importing the tuple, so that a test can add a row."""
    return TECHNIQUES


def kinds() -> tuple[Kind, ...]:
    """Every kind of plugin, in the order in which lists show them."""
    return (*TECHNIQUES, *_OTHERS)


def kind(name: str) -> Kind:
    """The kind called `name`; KeyError for one that there is not."""
    for row in kinds():
        if row.name == name:
            return row
    raise KeyError(name)


def hook_specifications() -> Any:
    """An object with one specified hook per kind, as pluggy takes it."""
    marker = pluggy.HookspecMarker(PROJECT)
    return type("Hooks", (), {row.hook: staticmethod(marker(_hook(row))) for row in kinds()})


def _hook(row: Kind) -> Callable[[], Iterable[Card]]:
    def hook() -> Iterable[Card]:
        return ()

    hook.__name__ = row.hook
    hook.__doc__ = row.doc
    hook.__annotations__["return"] = f"Iterable[{row.card.__name__}]"
    return hook
