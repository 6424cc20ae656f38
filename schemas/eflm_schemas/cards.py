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

from eflm_schemas.geometry import AttentionGeometry
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
    """A built-in model: its name, what it is, and the settings of stages and modality that fit its size.

    Options of techniques are not listed here: `TechniqueCard.suggest` derives them from `geometry`.
    """

    name: str
    summary: str
    settings: Mapping[str, Any] = field(factory=dict)
    geometry: AttentionGeometry | None = (
        None  #: of its first attention layer; None: techniques keep their defaults
    )


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
    #: plain words for tables and pages; with the paper's abbreviation: "AL · latency per step"
    label: str = ""
    #: stages whose result tables show it without --details, in the order of the cards
    headline: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The label, or the name where the card gives none."""
        return self.label or self.name


def _to_tuple(value: Any) -> Any:
    # Leave a single string as it is, so that the validator refuses it: it may be a one-element tuple without its comma.
    return tuple(value) if isinstance(value, list | set | frozenset) else value


_tuple_of_strings = validators.deep_iterable(validators.instance_of(str), validators.instance_of(tuple))


@frozen(kw_only=True)
class Card:
    """The description of a plugin. Use the subclass for the kind of your plugin.

    `factory` is called by the run; what it takes and returns is the kind's contract (`eflm.registry.contracts`).
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
class TechniqueCard(Card):
    """A technique: something that changes the model under test. Use the subclass of your technique's kind."""

    #: the technique of its kind that a run takes where a stage needs one and the user names none
    default: bool = False
    #: `suggest(geometry) -> {option: value}`: options that fit a small model; its module imports no torch
    suggest: Ref | None = None
    backends: tuple[Backend, ...] = ()  #: its implementations in order of preference; empty: only one
    limits: tuple[str, ...] = field(default=(), converter=_to_tuple)  #: cases that it does not support

    @property
    def replaces_modules(self) -> bool:
        """Whether it puts new modules into the model, so that weights must be read before they are quantized."""
        return False

    @property
    def needs_host(self) -> bool:
        """Whether the modality's host must find the places in the model that it acts on."""
        return True

    @property
    def works_causally(self) -> bool:
        """Whether it can serve models whose tokens see the past only."""
        return True

    @property
    def works_bidirectionally(self) -> bool:
        """Whether it can serve models whose tokens see each other."""
        return True

    @property
    def keeps_weights(self) -> bool:
        """Whether it can serve a pretrained model without training it from random weights."""
        return True

    @property
    def needs_trainable_weights(self) -> bool:
        """Whether it trains the model's own weights."""
        return False

    @property
    def untrainable(self) -> str:
        """Why the weights that it leaves cannot be trained; empty where they can."""
        return ""

    @property
    def stored_bits(self) -> int | None:
        """Nominal bits in which it stores a weight; None if it leaves the weights as they are."""
        return None

    @property
    def compresses(self) -> bool:
        """Whether it makes the stored weights smaller, so that the result compares sizes with and without it."""
        return False

    def acts_while_reading(self, device: str) -> bool:
        """Whether it acts on a checkpoint's weights as they are read, on a device such as "cpu" or "cuda:0"."""
        return False


@frozen(kw_only=True)
class AttentionCard(TechniqueCard):
    """An attention variant: `factory(geometry, options) -> AttentionVariant`."""

    kind: ClassVar[str] = "attention"
    hook: ClassVar[str] = "eflm_attention"

    #: it can start from a dense attention's trained weights (`load_dense`), so it may serve a pretrained model
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

    @property
    def replaces_modules(self) -> bool:
        """It replaces every attention layer."""
        return True

    @property
    def works_causally(self) -> bool:
        """As the card says."""
        return self.causal

    @property
    def works_bidirectionally(self) -> bool:
        """As the card says."""
        return self.bidirectional

    @property
    def keeps_weights(self) -> bool:
        """Only if it converts dense weights."""
        return self.converts


@frozen(kw_only=True)
class MoeRouterCard(TechniqueCard):
    """A mixture-of-experts router: `factory(geometry, options) -> MoeRouter | None` (None keeps the MLP dense)."""

    kind: ClassVar[str] = "moe"
    hook: ClassVar[str] = "eflm_moe_router"

    dense: bool = False  #: it keeps the MLPs dense
    #: a token's route depends on no later token; hosts that generate step by step need it
    causal: bool = True
    #: `naive(layer, tokens)`: the layer's output by loops over tokens and experts, from the paper's equations
    naive: Ref | None = None

    @property
    def replaces_modules(self) -> bool:
        """It replaces every MLP, unless it keeps them dense."""
        return not self.dense

    @property
    def works_causally(self) -> bool:
        """As the card says."""
        return self.causal


@frozen(kw_only=True)
class AdapterCard(TechniqueCard):
    """A fine-tuning method: `factory(options) -> Adapter`."""

    kind: ClassVar[str] = "adapter"
    hook: ClassVar[str] = "eflm_adapter"

    #: it trains the weights of the base model, so the quantizer must keep them trainable
    trains_base: bool = False
    stages: tuple[str, ...] = field(default=("finetune", "infer"), converter=_to_tuple)

    @property
    def needs_host(self) -> bool:
        """Only if it adds parameters at places that the host names."""
        return not self.trains_base

    @property
    def needs_trainable_weights(self) -> bool:
        """As the card says."""
        return self.trains_base


@frozen(kw_only=True)
class QuantizerCard(TechniqueCard):
    """A bit width: `factory(options) -> Quantizer`."""

    kind: ClassVar[str] = "quantizer"
    hook: ClassVar[str] = "eflm_quantizer"

    bits: int = field(validator=validators.ge(1))  #: nominal bits of one weight; the exact size is measured
    #: an optimizer can update the weights it leaves behind; `reason` says why not
    trainable: bool = True
    untrainable_reason: str = ""
    stages: tuple[str, ...] = field(default=("finetune", "infer"), converter=_to_tuple)
    #: kinds of device on which it quantizes a checkpoint's weights as they are read (`Quantizer.load_kwargs`)
    at_load: tuple[str, ...] = field(default=(), converter=_to_tuple, validator=_tuple_of_strings)
    #: `operations() -> {operator name: formula}` of operators that torch's FLOP counter does not know
    operations: Ref | None = None

    @property
    def needs_host(self) -> bool:
        """A bit width without named layers acts on none; the quantizer decides what that means."""
        return False

    @property
    def untrainable(self) -> str:
        """As the card says."""
        return "" if self.trainable else (self.untrainable_reason or "its weights cannot be trained")

    @property
    def stored_bits(self) -> int | None:
        """As the card says."""
        return self.bits

    @property
    def compresses(self) -> bool:
        """Every bit width is compared with the model's own."""
        return True

    def acts_while_reading(self, device: str) -> bool:
        """As the card says."""
        return device.partition(":")[0] in self.at_load


@frozen(kw_only=True)
class ModalityCard(Card):
    """A modality loader: `factory(options) -> Modality`."""

    kind: ClassVar[str] = "modality"
    hook: ClassVar[str] = "eflm_modality_loader"

    presets: tuple[Preset, ...] = ()  #: the first is used if the modality's name is given as the model
    causal: bool = True  #: its models are causal and autoregressive
    #: option values for which a causal model also contains bidirectional attention
    bidirectional_where: Mapping[str, tuple[Any, ...]] = field(factory=dict)
    #: what a saved model's folder calls itself (`_class_name`, `model_type`) if this modality can load it
    architectures: tuple[str, ...] = field(default=(), converter=_to_tuple, validator=_tuple_of_strings)
    #: stage options that mean nothing to it, as "stage.option": setting one is refused
    unused_options: tuple[str, ...] = field(default=(), converter=_to_tuple, validator=_tuple_of_strings)
    #: the modality of a model that no card claims, such as a Hub id; one card says so
    default: bool = False
    #: `identify(model, data) -> {name: text}`: "model" and "data" as a hash or commit, before a run; `model` is None
    #: for a preset. What it leaves out is hashed. Its module imports no torch
    identity: Ref | None = None

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


@frozen(kw_only=True)
class CommandCard(Card):
    """A command: `factory` names a `click.Command`, which is imported when the command is called."""

    kind: ClassVar[str] = "command"
    hook: ClassVar[str] = "eflm_commands"

    source: str = ""


@frozen(kw_only=True)
class ObserverCard(Card):
    """Something that follows runs, such as an experiment tracker: `factory(options) -> Observer`."""

    kind: ClassVar[str] = "observer"
    hook: ClassVar[str] = "eflm_observers"

    source: str = ""


@frozen(kw_only=True)
class PowerSourceCard(Card):
    """A source of power or energy readings: `factory(devices) -> PowerSource | NoEnergy`."""

    kind: ClassVar[str] = "power"
    hook: ClassVar[str] = "eflm_power_sources"

    devices: tuple[str, ...] = field(
        default=("cpu", "cuda"), converter=_to_tuple, validator=_tuple_of_strings
    )  #: device classes that it can read


def card_classes(base: type[Card] = Card) -> dict[str, type[Card]]:
    """The card class of each kind of plugin that this package defines, by the name of the kind."""
    own = {base.kind: base} if base.kind else {}
    for derived in base.__subclasses__():
        if derived.__module__ == __name__:
            own |= card_classes(derived)
    return own
