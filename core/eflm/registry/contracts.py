"""The contracts: what the factory of each kind of plugin returns, and what a run calls on it.

They are protocols, so a plugin needs no base class. What a plugin need not have is a protocol of its own, named after
the ability ("ConvertsDense", "ShowsArtifacts"); a run checks for it with `isinstance`. Shapes are written
(batch, tokens, hidden). torch appears in annotations only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from attrs import frozen

from eflm.protocol.energy import NoEnergy
from eflm.protocol.record import StageRecord
from eflm_schemas import AttentionGeometry, Flag, Metric, MlpGeometry, RunResult, RunSpec, StageResult

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import Cache

# --- attention ----------------------------------------------------------------------------------------


class Rotary(Protocol):
    """Rotates queries or keys to the positions of their tokens; the host supplies it."""

    def __call__(self, states: Tensor) -> Tensor:
        """(batch, heads, tokens, dim) -> the same shape. `dim` may be any even size, not only the head's."""


class AttentionVariant(Protocol):
    """One attention layer, an `nn.Module` built from an AttentionGeometry. It knows no model.

    A variant that computes a score for every pair of tokens may take a further keyword `bias: Tensor | None`
    ((1, heads, tokens, cached + tokens), added to the scores; relative positions). One whose later layers need what the
    first computed may take `shared: MutableMapping[str, Tensor] | None`, one mapping for all layers of a forward pass.
    """

    def __call__(
        self,
        hidden_states: Tensor,
        *,
        rotary: Rotary | None = None,
        padding_mask: Tensor | None = None,
        cache: Cache | None = None,
        context: Tensor | None = None,
    ) -> Tensor:
        """(batch, tokens, hidden) -> (batch, tokens, hidden).

        `padding_mask`: (batch, cached + tokens), bool, True for a real token; None if all are real. Padding may be on
        the left (generation) or on the right (training); outputs at padding are not used. `cache`: transformers' Cache;
        the layer's own entry is `geometry.layer_idx`, to which the variant appends. `context`: (batch, context tokens,
        cross_attention_dim) for cross-attention; None for self-attention. Causality is `geometry.causal`.
        """


@frozen(kw_only=True)
class DenseAttention:
    """A trained dense attention's weights, for a variant that can start from them.

    Weights are as nn.Linear holds them, (out, in); biases are None if the model has none.
    """

    geometry: AttentionGeometry
    q_weight: Tensor
    k_weight: Tensor
    v_weight: Tensor
    o_weight: Tensor
    q_bias: Tensor | None = None
    k_bias: Tensor | None = None
    v_bias: Tensor | None = None
    o_bias: Tensor | None = None
    q_norm: Tensor | None = None  #: weights of the norms of `geometry.query_key_norm`
    k_norm: Tensor | None = None


@runtime_checkable
class ConvertsDense(Protocol):
    """An attention variant that can start from a dense attention's weights. Its card says `converts`."""

    def load_dense(self, dense: DenseAttention) -> None:
        """Take over the weights."""


@runtime_checkable
class HasBackends(Protocol):
    """A module that can compute the same thing in several ways. Its card lists them."""

    #: each backend that ran since this was last cleared -> None, or why it replaced a better one
    used_backends: MutableMapping[str, str | None]


class AttentionCost(Protocol):
    """What a variant stores and computes, in closed form: made from its options, in a module that imports no torch."""

    def cache_bytes_per_token(self, geometry: AttentionGeometry, dtype: str) -> float:
        """Bytes by which one layer's cache grows with each token of a sequence; `dtype` as torch names it."""

    def fixed_cache_bytes(self, geometry: AttentionGeometry, dtype: str) -> float:
        """Bytes of one layer's cache that do not grow with the sequence: windows, recurrent states."""

    def flops(self, geometry: AttentionGeometry, tokens: int, context: int) -> int:
        """Operations of one layer's forward pass for the last `tokens` of `context` positions of one sequence.

        Projections are included. A multiply-add counts as two, and only what a causal mask leaves visible counts.
        """


# --- mixtures of experts ------------------------------------------------------------------------------


class Routing(NamedTuple):
    """Which tokens go to which experts: pairs of a token and an expert, with the weight of that expert's output.

    `weights`, `experts`: (tokens, top_k), or any one shape together with `tokens`, which then holds the token of each.
    `probabilities`: (tokens, experts), the router's view of every expert, rows summing to one, for metrics only.
    `aux_loss`: a scalar to add to the loss, or None. It is a named tuple because torch.compile can trace one.
    """

    weights: Tensor
    experts: Tensor
    tokens: Tensor | None = None
    probabilities: Tensor | None = None
    aux_loss: Tensor | None = None


class MoeRouter(Protocol):
    """Chooses experts, an `nn.Module`. One expert layer does the dispatch for all routers.

    A router may also have `num_shared_experts: int`, the number of expert widths of an expert that every token uses.
    """

    num_experts: int
    expert_intermediate_size: int | None  #: None: as wide as the MLP that the experts replace

    def __call__(self, tokens: Tensor) -> Routing:
        """(tokens, hidden) -> Routing."""


@runtime_checkable
class Tallying(Protocol):
    """A module that counts what happens in it while a stage is measured, for a metric collector to read."""

    def begin_tally(self) -> None:
        """Reset the counts and start counting."""

    def end_tally(self) -> Mapping[str, Any]:
        """The counts, plain numbers by name; the stage's record holds a list of them by name in `facts`."""


# --- adapters and quantizers --------------------------------------------------------------------------


@frozen(kw_only=True)
class Targets:
    """Where adapters and quantizers may act in a model, as the host names it.

    Names are those of `model.named_modules()`.
    """

    layers: tuple[str, ...]  #: the blocks, first to last
    linears: tuple[str, ...]  #: linear layers of attention and feed-forward sites; no routers, no heads
    attention_linears: tuple[str, ...]  #: those of them that belong to attention
    embeddings: tuple[str, ...] = ()


class Adapter(Protocol):
    """A fine-tuning method: decides what is trained."""

    def apply(self, model: nn.Module, targets: Targets) -> nn.Module:
        """Return the model with exactly the parameters to train requiring a gradient."""

    def parameter_groups(self, model: nn.Module, learning_rate: float) -> list[dict[str, Any]]:
        """The trained parameters as torch optimizers take them; more than one group if rates differ."""

    def merge(self, model: nn.Module) -> nn.Module:
        """Fold what was learned into the base weights if the method can; otherwise return the model as it is."""


class Quantizer(Protocol):
    """A bit width: acts when a pretrained model is loaded, or on a model that is already built."""

    def load_kwargs(self, device: str) -> Mapping[str, Any]:
        """Keywords for `from_pretrained` (`dtype`, `quantization_config`); empty if it acts on built models only."""

    def apply(self, model: nn.Module, targets: Targets, device: str) -> nn.Module:
        """Quantize a built model in place or as a new one. Do nothing to a model that `load_kwargs` quantized."""


@runtime_checkable
class RestoresPacked(Protocol):
    """A quantizer whose packed weights can be read back without the full-precision model."""

    def restore(
        self, model: nn.Module, targets: Targets, tensors: MutableMapping[str, Tensor], device: str
    ) -> nn.Module:
        """Put packed layers into `model`, whose parameters are on the meta device, and return it.

        `tensors` is the state dict of the model that `apply` returned. Remove what is used; the run assigns the rest
        by name.
        """


class Host(Protocol):
    """Finds the sites of a family of models and puts techniques there. It knows no technique."""

    def attention_geometries(self, model: nn.Module) -> Sequence[AttentionGeometry]:
        """One geometry per attention site, first layer to last."""

    def replace_attention(
        self,
        model: nn.Module,
        build: Callable[[AttentionGeometry], Any],
        *,
        convert: bool,
        recipe: Mapping[str, Any],
        plain: bool = False,
    ) -> None:
        """Put `build(geometry)` at every attention site, starting from the old weights if `convert`.

        `recipe` is what a saved model must say about the plugin that it needs to load again. It need not if the variant
        is `plain` grouped-query attention that the family's own checkpoints can hold.
        Raises ModelError if the model's own attention has parts that the variant could not keep.
        """

    def replace_mlps(
        self,
        model: nn.Module,
        build: Callable[[MlpGeometry], Any],
        *,
        convert: bool,
        recipe: Mapping[str, Any],
    ) -> None:
        """Put a mixture of experts routed by `build(geometry)` at every feed-forward site (None keeps it dense).

        With `convert`, every expert starts as a copy of the dense MLP (sparse upcycling).
        """

    def targets(self, model: nn.Module) -> Targets:
        """Where adapters and quantizers may act."""


# --- modalities ---------------------------------------------------------------------------------------


@frozen(kw_only=True)
class Batch:
    """The input of one step, in a form that the workload's own functions understand, and how much work it is.

    `expected_tokens`: the tokens that a request must generate; None if that is not known beforehand. `flops`: its
    floating-point operations, backward pass included, if the workload knows them. With None, torch's operators are
    counted once, on the first batch, which misses the work of other libraries.
    """

    inputs: Any
    samples: int
    tokens: int
    expected_tokens: int | None = None
    flops: float | None = None


@frozen(kw_only=True)
class Generated:
    """The result of one inference request: outputs, and the verified counts that throughput is computed from."""

    outputs: Any
    samples: int
    tokens: int  #: generated tokens (or images, or frames), counted from the outputs
    #: counts the bytes of the cache at its largest; called outside every window
    cache_bytes: Callable[[], int] | None = None


class Phase(Protocol):
    """Opens a timed window inside a request: `with phase("prefill", tokens=512): ...`."""

    def __call__(self, name: str, *, tokens: int = 0, samples: int = 0) -> AbstractContextManager[None]:
        """Both ends are synchronised with the device."""


@frozen(kw_only=True)
class WorkloadRequest:
    """What a modality is asked to prepare. `stages` holds the options of each stage of the run, by name."""

    model: str
    data: str | None
    stages: Mapping[str, Any]
    seed: int
    device: str


class Workload(Protocol):
    """A model's work: what the stages run. Anything with steps can be one."""

    host: Host | None  #: None: no technique can be put into its models
    facts: Mapping[str, Any]  #: provenance for the result: data hash, tokenizer, preset, revision
    flags: Sequence[Flag]

    def build_model(self, *, from_scratch: bool, load_kwargs: Mapping[str, Any]) -> nn.Module:
        """A new model on the CPU: random weights from the request's seed, or the pretrained ones."""

    def batches(self, stage: str) -> Iterator[Batch]:
        """Training batches of "pretrain" or "finetune", without end, the same for the same seed."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The scalar to minimise, auxiliary losses included."""

    def requests(self) -> Iterator[Batch]:
        """Inference requests, without end, the same for the same seed."""

    def generate(self, model: nn.Module, request: Batch, phase: Phase) -> Generated:
        """Serve one request with a fixed amount of work; windows of its phases are opened with `phase`."""

    def quality(self, model: nn.Module, stage: str) -> Mapping[str, Metric]:
        """Held-out quality after a stage, by metric name, with the floor that a reader should compare with."""


@runtime_checkable
class ShowsArtifacts(Protocol):
    """A workload with outputs to look at, such as generated pictures."""

    def artifacts(self, model: nn.Module, stage: str) -> Mapping[str, bytes]:
        """Files such as "samples.png" by name, called after `quality`; they are saved next to the result.

        `facts["artifacts"]` says what each shows, a sentence by name, which `eflm report` prints below it.
        """


@runtime_checkable
class HasOutline(Protocol):
    """A workload that can build its pretrained model's architecture without reading its weights."""

    def outline(self) -> nn.Module:
        """The model as `build_model` gives it, with parameters of any value; called with parameters on meta."""


@runtime_checkable
class SavesModel(Protocol):
    """A workload that saves a model in the format of its library, with tokenizer, scheduler and so on."""

    def save(self, model: nn.Module, folder: str) -> None:
        """Write a folder that transformers, peft or diffusers load, or that names the plugin it needs."""


class Modality(Protocol):
    """Turns a model id, path or preset into a workload."""

    def prepare(self, request: WorkloadRequest) -> Workload:
        """Read data, train or load the tokenizer, and so on. Raises DataError or ModelError."""


# --- the parent process -------------------------------------------------------------------------------


class MetricCollector(Protocol):
    """Computes metrics of one stage from its record, in a process of the parent's."""

    def collect(self, record: StageRecord) -> Mapping[str, Metric]:
        """Metrics by name, as the card announces them; leave out those that do not apply to this stage."""


@frozen(kw_only=True)
class Device:
    """The device of one worker, for a power source: which one it is, and the process that uses it."""

    kind: str  #: "cpu" or "cuda"
    index: int  #: torch's index; 0 for a CPU
    uuid: str | None  #: of a GPU, as torch reports it
    pid: int


class PowerSource(Protocol):
    """Readings of devices while a stage runs. `source` says where energy comes from; None: it reads no energy."""

    source: str | None

    def read(self) -> Mapping[str, float]:
        """Readings by the names of `Sample`'s fields: "energy" in J since a fixed moment, "power" in W, and so on.

        Called about 50 times a second; an exception ends this source's part in the run.
        """


@runtime_checkable
class ExplainsNoEnergy(Protocol):
    """A power source that says why it reads no energy."""

    @property
    def no_energy(self) -> NoEnergy | None:
        """The reason; None if the source knows none. It is used only if `source` is None."""


@runtime_checkable
class WatchesDevice(Protocol):
    """A power source that also knows the device's driver and what disturbed it."""

    def driver(self) -> str | None:
        """The driver's version."""

    def flags(self) -> Sequence[Flag]:
        """What a reader must know: other processes on the device, clocks that were held back."""

    def close(self) -> None:
        """Release the device. Called once, after the last reading."""


class Observer(Protocol):
    """Follows runs from the parent process. It is never called during a measurement."""

    def run_started(self, spec: RunSpec, keys: Mapping[str, str]) -> None:
        """A run starts; `keys` are those of its stages, by name."""

    def stage_started(self, stage: str, key: str) -> None:
        """A stage is about to start."""

    def stage_finished(self, stage: str, result: StageResult) -> None:
        """A stage has ended and its result is saved, or an earlier result was reused."""

    def stage_failed(self, stage: str, reason: str) -> None:
        """A stage did not finish."""

    def run_finished(self, result: RunResult) -> None:
        """The run has ended; `result.status` says how."""
