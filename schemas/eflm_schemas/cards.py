"""Cards: what a plugin says of itself, as frozen data.

A card names its implementation by a `Ref`, which is imported only when a run needs it, so that plugins
can be listed and legality decided without torch.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from attrs import field, frozen, validators

from eflm_schemas.spec import STAGES

_NAME = re.compile(r"[a-z0-9][a-z0-9._+-]*")
_REF = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


@frozen
class Ref:
    """An object by its address, `"package.module:attribute"`, imported on `resolve()` and not before."""

    target: str = field()

    @target.validator
    def _check(self, _attribute: Any, value: object) -> None:
        if not isinstance(value, str) or not _REF.fullmatch(value):
            raise ValueError(f"a Ref is written 'package.module:attribute', not {value!r}")

    def resolve(self) -> Any:
        """Import the module and return the attribute; ImportError or AttributeError when it is not there."""
        module, _, attribute = self.target.partition(":")
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
        return found


@frozen
class Conflict:
    """A plugin that cannot go together with the one whose card holds this: which, why, what to take instead."""

    plugin: str  #: "kind/name", for example "quantizer/int4"
    reason: str
    instead: str
    #: only where that plugin's options have these values; none: always
    options: Mapping[str, Any] = field(factory=dict)

    @property
    def what(self) -> str:
        """What cannot be had, as a user would write it: the plugin, or its settings."""
        name = self.plugin.rpartition("/")[2]
        return " ".join(f"{name}.{key}={value}" for key, value in self.options.items()) or self.plugin


@frozen
class Preset:
    """A model built in: its name, what it is, and the settings that fit every technique to its size."""

    name: str
    summary: str
    settings: Mapping[str, Any] = field(factory=dict)


@frozen
class Backend:
    """One of the ways in which a technique can compute the same thing: where it runs, and what it needs.

    A card lists them best first; `--set NAME.backend=...` overrides the choice.
    """

    name: str
    summary: str
    devices: tuple[str, ...] = ("cpu", "cuda")
    requires: tuple[str, ...] = ()  #: import names
    extra: str | None = None  #: the extra of the distribution that installs them


@frozen
class MetricInfo:
    """What a metric means: its unit, which direction is better, and the definition it follows."""

    name: str
    unit: str
    better: Literal["lower", "higher", "neither"] = field(
        validator=validators.in_(("lower", "higher", "neither"))
    )
    definition: str


def _strings(value: Any) -> Any:
    # A lone string is an easy mistake for a one-element tuple; iterating over its letters would be a worse one.
    return tuple(value) if isinstance(value, list | set | frozenset) else value


_tuple_of_strings = validators.deep_iterable(validators.instance_of(str), validators.instance_of(tuple))


@frozen(kw_only=True)
class Card:
    """What every plugin says of itself. Use the subclass of your plugin's kind.

    `factory` is called by the run; what it takes and returns is the kind's contract (`eflm.contracts`).
    `config` names an attrs class made with `eflm_schemas.option`; its fields become `--set NAME.FIELD=VALUE`.
    It must live in a module that does not import torch.
    """

    kind: ClassVar[str] = ""
    hook: ClassVar[str] = ""

    name: str = field(validator=validators.matches_re(_NAME))
    summary: str = field(validator=validators.instance_of(str))
    source: str = field(validator=validators.instance_of(str))  #: paper (arXiv id, section) or URL
    factory: Ref = field(validator=validators.instance_of(Ref))
    config: Ref | None = field(default=None, validator=validators.optional(validators.instance_of(Ref)))
    requires: tuple[str, ...] = field(
        default=(), converter=_strings, validator=_tuple_of_strings
    )  #: import names
    extra: str | None = None  #: the extra of the distribution that installs what `requires` names
    modalities: tuple[str, ...] = field(
        default=(), converter=_strings, validator=_tuple_of_strings
    )  #: none: any
    stages: tuple[str, ...] = field(default=STAGES, converter=_strings)
    conflicts: tuple[Conflict, ...] = field(
        default=(),
        converter=_strings,
        validator=validators.deep_iterable(validators.instance_of(Conflict), validators.instance_of(tuple)),
    )

    @stages.validator
    def _check_stages(self, _attribute: Any, value: object) -> None:
        if not isinstance(value, tuple) or not value or any(stage not in STAGES for stage in value):
            raise ValueError(f"stages are some of {', '.join(STAGES)}, not {value!r}")

    @property
    def address(self) -> str:
        """`kind/name`, as `eflm show` takes it."""
        return f"{self.kind}/{self.name}"


@frozen(kw_only=True)
class AttentionCard(Card):
    """An attention variant: `factory(geometry, options) -> AttentionVariant`."""

    kind: ClassVar[str] = "attention"
    hook: ClassVar[str] = "eflm_attention"

    #: it takes over a dense attention's trained weights (`load_dense`), so it may serve a pretrained model
    converts: bool = False
    #: a model saved with it loads with plain transformers, without this plugin
    plain_checkpoint: bool = False
    causal: bool = True  #: it can serve a host that attends to the past only
    bidirectional: bool = False  #: it can serve a host that attends both ways
    #: `naive(module, hidden_states, *, rotary, padding_mask)`: the paper's equations, which every fast path must equal
    naive: Ref | None = None
    #: `cost(options) -> AttentionCost`: what its cache holds and what it computes; its module imports no torch
    cost: Ref | None = None
    backends: tuple[Backend, ...] = ()  #: ways to compute it, best first; none: there is one way
    limits: tuple[str, ...] = field(default=(), converter=_strings)  #: what it does not support, in words


@frozen(kw_only=True)
class MoeRouterCard(Card):
    """A mixture-of-experts router: `factory(geometry, options) -> MoeRouter | None` (None keeps the MLP dense)."""

    kind: ClassVar[str] = "moe"
    hook: ClassVar[str] = "eflm_moe_router"

    dense: bool = False  #: it keeps the MLPs dense
    causal: bool = (
        True  #: a token's route depends on no later token; hosts that generate step by step need it
    )
    #: `naive(layer, tokens)`: the layer's output by loops over tokens and experts, from the paper's equations
    naive: Ref | None = None


@frozen(kw_only=True)
class AdapterCard(Card):
    """A fine-tuning method: `factory(options) -> Adapter`."""

    kind: ClassVar[str] = "adapter"
    hook: ClassVar[str] = "eflm_adapter"

    #: it updates the model's own weights, so the quantizer must leave them trainable
    trains_base: bool = False
    stages: tuple[str, ...] = field(default=("finetune", "infer"), converter=_strings)


@frozen(kw_only=True)
class QuantizerCard(Card):
    """A bit width: `factory(options) -> Quantizer`."""

    kind: ClassVar[str] = "quantizer"
    hook: ClassVar[str] = "eflm_quantizer"

    bits: int = field(validator=validators.ge(1))  #: nominal bits of one weight; the exact size is measured
    #: an optimizer can update the weights it leaves behind; `reason` says why not
    trainable: bool = True
    untrainable_reason: str = ""
    stages: tuple[str, ...] = field(default=("finetune", "infer"), converter=_strings)


@frozen(kw_only=True)
class ModalityCard(Card):
    """A modality loader: `factory(options) -> Modality`."""

    kind: ClassVar[str] = "modality"
    hook: ClassVar[str] = "eflm_modality_loader"

    presets: tuple[Preset, ...] = ()  #: the first is what the modality's name stands for as a model
    causal: bool = True  #: its models attend to the past only and generate step by step
    #: values of its options with which some attention of a causal model goes both ways, too
    bidirectional_where: Mapping[str, tuple[Any, ...]] = field(factory=dict)
    #: what a saved model's folder calls itself (`_class_name`, `model_type`) if this modality can load it
    architectures: tuple[str, ...] = field(default=(), converter=_strings, validator=_tuple_of_strings)
    #: stage options that mean nothing to it, as "stage.option": setting one is refused
    unused_options: tuple[str, ...] = field(default=(), converter=_strings, validator=_tuple_of_strings)

    def preset(self, model: str) -> Preset | None:
        """The preset of that name, or None when `model` names a pretrained model."""
        return next((preset for preset in self.presets if preset.name == model), None)


@frozen(kw_only=True)
class MetricCard(Card):
    """A metric collector: `factory(options) -> MetricCollector`."""

    kind: ClassVar[str] = "metric"
    hook: ClassVar[str] = "eflm_metric_collector"

    metrics: tuple[MetricInfo, ...] = field(
        converter=_strings,
        validator=validators.deep_iterable(validators.instance_of(MetricInfo), validators.instance_of(tuple)),
    )


#: The kinds of plugin, by name, in the order in which they are listed.
KINDS: dict[str, type[Card]] = {
    card.kind: card
    for card in (AttentionCard, MoeRouterCard, AdapterCard, QuantizerCard, ModalityCard, MetricCard)
}
