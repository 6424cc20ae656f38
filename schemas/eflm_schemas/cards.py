"""Cards: descriptions of plugins as frozen data.

A card refers to its implementation with a `Ref`, which is imported only when a run needs it. Plugins can therefore
be listed, and their compatibility checked, without torch.
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
    """The import path of an object, `"package.module:attribute"`. Only `resolve()` imports the module."""

    target: str = field()

    @target.validator
    def _check(self, _attribute: Any, value: object) -> None:
        if not isinstance(value, str) or not _REF.fullmatch(value):
            raise ValueError(f"a Ref must have the form 'package.module:attribute', not {value!r}")

    def resolve(self) -> Any:
        """Import the module and return the attribute. Raises ImportError or AttributeError if it does not exist."""
        module, _, attribute = self.target.partition(":")
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
        return found


@frozen
class Conflict:
    """A plugin that cannot be combined with the plugin of this card, with the reason and an alternative."""

    plugin: str  #: "kind/name", for example "quantizer/int4"
    reason: str
    instead: str
    #: the conflict exists only for these option values of that plugin; empty: for all values
    options: Mapping[str, Any] = field(factory=dict)

    @property
    def what(self) -> str:
        """The conflicting plugin, or its conflicting options in the form NAME.OPTION=VALUE."""
        name = self.plugin.rpartition("/")[2]
        return " ".join(f"{name}.{key}={value}" for key, value in self.options.items()) or self.plugin


@frozen
class Preset:
    """A built-in model: its name, a summary, and option values that fit the techniques to its size."""

    name: str
    summary: str
    settings: Mapping[str, Any] = field(factory=dict)


@frozen
class Backend:
    """One implementation of a technique: the devices it supports and the packages it needs.

    A card lists its backends in order of preference. `--set NAME.backend=...` selects one.
    """

    name: str
    summary: str
    devices: tuple[str, ...] = ("cpu", "cuda")
    requires: tuple[str, ...] = ()  #: import names
    extra: str | None = None  #: the extra of the distribution that installs the required packages


@frozen
class MetricInfo:
    """The meaning of a metric: its unit, its definition, and whether lower or higher values are better."""

    name: str
    unit: str
    better: Literal["lower", "higher", "neither"] = field(
        validator=validators.in_(("lower", "higher", "neither"))
    )
    definition: str


def _to_tuple(value: Any) -> Any:
    # Leave a single string as it is, so that the validator refuses it: it may be a one-element tuple without its comma.
    return tuple(value) if isinstance(value, list | set | frozenset) else value


_tuple_of_strings = validators.deep_iterable(validators.instance_of(str), validators.instance_of(tuple))


@frozen(kw_only=True)
class Card:
    """The description of a plugin. Use the subclass for the kind of your plugin.

    A run calls `factory`; `eflm.contracts` defines its parameters and its result for each kind.
    `config` refers to an attrs class whose fields are declared with `eflm_schemas.option`; users set them with
    `--set NAME.FIELD=VALUE`. The module of that class must not import torch.
    """

    kind: ClassVar[str] = ""
    hook: ClassVar[str] = ""

    name: str = field(validator=validators.matches_re(_NAME))
    summary: str = field(validator=validators.instance_of(str))
    source: str = field(validator=validators.instance_of(str))  #: paper (arXiv id, section) or URL
    factory: Ref = field(validator=validators.instance_of(Ref))
    config: Ref | None = field(default=None, validator=validators.optional(validators.instance_of(Ref)))
    #: import names of the packages that it needs
    requires: tuple[str, ...] = field(default=(), converter=_to_tuple, validator=_tuple_of_strings)
    extra: str | None = None  #: the extra of the distribution that installs the packages in `requires`
    #: names of the modalities that it supports; empty: all
    modalities: tuple[str, ...] = field(default=(), converter=_to_tuple, validator=_tuple_of_strings)
    stages: tuple[str, ...] = field(default=STAGES, converter=_to_tuple)
    conflicts: tuple[Conflict, ...] = field(
        default=(),
        converter=_to_tuple,
        validator=validators.deep_iterable(validators.instance_of(Conflict), validators.instance_of(tuple)),
    )

    @stages.validator
    def _check_stages(self, _attribute: Any, value: object) -> None:
        if not isinstance(value, tuple) or not value or any(stage not in STAGES for stage in value):
            raise ValueError(f"stages must be a non-empty tuple of {', '.join(STAGES)}, not {value!r}")

    @property
    def address(self) -> str:
        """`kind/name`, the argument of `eflm show`."""
        return f"{self.kind}/{self.name}"


@frozen(kw_only=True)
class AttentionCard(Card):
    """An attention variant: `factory(geometry, options) -> AttentionVariant`."""

    kind: ClassVar[str] = "attention"
    hook: ClassVar[str] = "eflm_attention"

    #: it can load the trained weights of a dense attention (`load_dense`), so it can be used with a pretrained model
    converts: bool = False
    #: transformers can load a model saved with it, without this plugin
    plain_checkpoint: bool = False
    causal: bool = True  #: it supports causal hosts
    bidirectional: bool = False  #: it supports bidirectional hosts
    #: `naive(module, hidden_states, *, rotary, padding_mask)`: the reference implementation of the paper's equations,
    #: which every faster implementation must match
    naive: Ref | None = None
    #: `cost(options) -> AttentionCost`: its cache size and its operations; the module must not import torch
    cost: Ref | None = None
    backends: tuple[Backend, ...] = ()  #: its implementations in order of preference; empty: only one
    limits: tuple[str, ...] = field(default=(), converter=_to_tuple)  #: cases that it does not support


@frozen(kw_only=True)
class MoeRouterCard(Card):
    """A mixture-of-experts router: `factory(geometry, options) -> MoeRouter | None` (None leaves the MLP dense)."""

    kind: ClassVar[str] = "moe"
    hook: ClassVar[str] = "eflm_moe_router"

    dense: bool = False  #: it leaves the MLPs dense
    #: the routing of a token does not depend on later tokens; autoregressive hosts need this
    causal: bool = True
    #: `naive(layer, tokens)`: the reference implementation, which loops over tokens and experts
    naive: Ref | None = None


@frozen(kw_only=True)
class AdapterCard(Card):
    """A fine-tuning method: `factory(options) -> Adapter`."""

    kind: ClassVar[str] = "adapter"
    hook: ClassVar[str] = "eflm_adapter"

    #: it trains the weights of the base model, so the quantizer must keep them trainable
    trains_base: bool = False
    stages: tuple[str, ...] = field(default=("finetune", "infer"), converter=_to_tuple)


@frozen(kw_only=True)
class QuantizerCard(Card):
    """A weight quantizer: `factory(options) -> Quantizer`."""

    kind: ClassVar[str] = "quantizer"
    hook: ClassVar[str] = "eflm_quantizer"

    bits: int = field(validator=validators.ge(1))  #: nominal bits per weight; the exact size is measured
    trainable: bool = True  #: an optimizer can update the quantized weights
    untrainable_reason: str = ""  #: why it cannot, if `trainable` is false
    stages: tuple[str, ...] = field(default=("finetune", "infer"), converter=_to_tuple)


@frozen(kw_only=True)
class ModalityCard(Card):
    """A modality loader: `factory(options) -> Modality`."""

    kind: ClassVar[str] = "modality"
    hook: ClassVar[str] = "eflm_modality_loader"

    presets: tuple[Preset, ...] = ()  #: the first is used if the modality's name is given as the model
    causal: bool = True  #: its models are causal and autoregressive
    #: option values for which a causal model also contains bidirectional attention
    bidirectional_where: Mapping[str, tuple[Any, ...]] = field(factory=dict)
    #: architectures of saved models that it can load: `_class_name` or `model_type` of their configuration
    architectures: tuple[str, ...] = field(default=(), converter=_to_tuple, validator=_tuple_of_strings)
    #: stage options that have no effect for it, in the form "stage.option"; setting one is an error
    unused_options: tuple[str, ...] = field(default=(), converter=_to_tuple, validator=_tuple_of_strings)

    def preset(self, model: str) -> Preset | None:
        """Return the preset called `model`, or None if there is none: then `model` is a pretrained model."""
        return next((preset for preset in self.presets if preset.name == model), None)


@frozen(kw_only=True)
class MetricCard(Card):
    """A metric collector: `factory(options) -> MetricCollector`."""

    kind: ClassVar[str] = "metric"
    hook: ClassVar[str] = "eflm_metric_collector"

    metrics: tuple[MetricInfo, ...] = field(
        converter=_to_tuple,
        validator=validators.deep_iterable(validators.instance_of(MetricInfo), validators.instance_of(tuple)),
    )


#: Name of a kind of plugin -> class of its cards, in the order of `eflm list-plugins`.
KINDS: dict[str, type[Card]] = {
    card.kind: card
    for card in (AttentionCard, MoeRouterCard, AdapterCard, QuantizerCard, ModalityCard, MetricCard)
}
