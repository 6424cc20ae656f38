"""The contracts: what each kind of plugin's factory returns, and what a run asks of it.

Protocols, so a plugin needs no base class. Shapes are written (batch, tokens, hidden); B, T, H, D stand for
batch, tokens, heads and head size. torch appears in annotations only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from attrs import frozen

from eflm.protocol.record import StageRecord
from eflm_schemas import AttentionGeometry, Flag, Metric, MlpGeometry

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import Cache

# --- techniques ---------------------------------------------------------------------------------------


class Rotary(Protocol):
    """Rotates queries or keys to the positions of the tokens at hand; the host supplies it."""

    def __call__(self, states: Tensor) -> Tensor:
        """(batch, heads, tokens, dim) -> the same shape. `dim` may be any even size, not only the head's."""


class AttentionVariant(Protocol):
    """One attention layer, an `nn.Module` built from an AttentionGeometry. It knows no model."""

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

        `padding_mask`: (batch, cached + tokens), bool, True for a real token; None when all are real. Padding
        may stand on the left (generation) or on the right (training); outputs at padding are not used.
        `cache`: transformers' Cache; the layer's own entry is `geometry.layer_idx`. The variant appends to it.
        `context`: (batch, context tokens, cross_attention_dim) for cross-attention; None for self-attention.
        Causality is `geometry.causal`, not an argument.
        """

    # A variant that computes a score for every pair of tokens may also take
    #     bias: Tensor | None = None  ((1, heads, tokens, cached + tokens), added to the scores; relative positions)
    # One whose later layers need what the first computed may also take
    #     shared: MutableMapping[str, Tensor] | None = None  (one mapping for all layers of a forward pass)
    # A variant whose card says `converts` also has:
    #     def load_dense(self, dense: DenseAttention) -> None
    # A variant whose card lists backends also has:
    #     used_backends: dict[str, str | None]  (each backend that ran; None, or why it stood in for a better one)


class AttentionCost(Protocol):
    """What a variant keeps and computes, in closed form: made from its options, in a module that imports no torch."""

    def cache_bytes_per_token(self, geometry: AttentionGeometry, dtype: str) -> float:
        """Bytes by which one layer's cache grows with each token of a sequence; `dtype` as torch names it."""

    def fixed_cache_bytes(self, geometry: AttentionGeometry, dtype: str) -> float:
        """Bytes of one layer's cache that no longer grow once a sequence is long: windows, recurrent states."""

    def flops(self, geometry: AttentionGeometry, tokens: int, context: int) -> int:
        """Operations of one layer's forward for the last `tokens` of `context` positions of one sequence.

        Projections included; a multiply-add is two, and only what a causal mask leaves to see is counted.
        """


@frozen(kw_only=True)
class DenseAttention:
    """A trained dense attention's weights, for a variant that can start from them.

    Weights as nn.Linear holds them, (out, in); biases None where the model has none.
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


class Routing(NamedTuple):
    """Where tokens go: pairs of a token and an expert, each with the weight of that expert's output.

    `weights`, `experts`: (tokens, top_k), or any one shape together with `tokens`, which then says whose they are.
    `probabilities`: (tokens, experts), how the router sees every expert, rows summing to one, for figures only.
    `aux_loss`: a scalar to add to the loss, or None. A named tuple, since torch.compile sees through one.
    """

    weights: Tensor
    experts: Tensor
    tokens: Tensor | None = None
    probabilities: Tensor | None = None
    aux_loss: Tensor | None = None


class MoeRouter(Protocol):
    """Chooses experts, an `nn.Module`. One expert layer does the dispatch for all routers."""

    num_experts: int
    expert_intermediate_size: int | None  #: None: as wide as the MLP that the experts replace

    def __call__(self, tokens: Tensor) -> Routing:
        """(tokens, hidden) -> Routing."""

    # A router may also have `num_shared_experts`: experts' widths of a further expert that every token goes through.


class Tallying(Protocol):
    """A module that can count what happens in it while a stage is measured, for a metric collector to read."""

    def begin_tally(self) -> None:
        """Forget what came before, and count from here on."""

    def end_tally(self) -> Mapping[str, Any]:
        """What was counted, plain numbers by name; the stage's record holds a list of them by name in `facts`."""


@frozen(kw_only=True)
class Targets:
    """Where adapters and quantizers may act in a model, as the host names it.

    Names are those of `model.named_modules()`.
    """

    layers: tuple[str, ...]  #: the blocks, first to last
    linears: tuple[str, ...]  #: linear layers of attention and feed-forward sites; routers and heads left out
    attention_linears: tuple[str, ...]  #: those of them that belong to attention
    embeddings: tuple[str, ...] = ()


class Adapter(Protocol):
    """A fine-tuning method: decides what is trained."""

    def apply(self, model: nn.Module, targets: Targets) -> nn.Module:
        """Return the model with exactly the parameters to train requiring a gradient."""

    def parameter_groups(self, model: nn.Module, learning_rate: float) -> list[dict[str, Any]]:
        """The trained parameters as torch optimizers take them; more than one group where rates differ."""

    def merge(self, model: nn.Module) -> nn.Module:
        """Fold what was learned into the base weights where the method can; otherwise return the model as it is."""


class Quantizer(Protocol):
    """A bit width: acts when a pretrained model is loaded, or on a model that is already built."""

    def load_kwargs(self, device: str) -> Mapping[str, Any]:
        """Keywords for `from_pretrained` (`dtype`, `quantization_config`); empty when it only acts on built models."""

    def apply(self, model: nn.Module, targets: Targets, device: str) -> nn.Module:
        """Quantize a built model in place or anew. Must do nothing to a model that `load_kwargs` already quantized."""


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
        """Put `build(geometry)` at every attention site, with the old weights taken over when `convert`.

        `recipe` is what a saved model must say of the plugin that it needs to load again. It need not when the variant
        is `plain` grouped-query attention, and the family's own checkpoints can hold such a one.
        Raises ModelError when the model's own attention has parts that the variant could not keep.
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
    """What one step works on: whatever the workload's own functions understand, and how much it counts for.

    `expected_tokens`: what a request must generate; None where that is not known beforehand. `flops`: its
    floating-point operations, backward pass included, where the workload knows them; None has torch's operators counted
    once, on the first batch, which sees nothing of other libraries' work.
    """

    inputs: Any
    samples: int
    tokens: int
    expected_tokens: int | None = None
    flops: float | None = None


@frozen(kw_only=True)
class Generated:
    """What one inference request gave: outputs, and the verified counts that throughput is worked out from."""

    outputs: Any
    samples: int
    tokens: int  #: generated tokens (or images, or frames), counted from the outputs
    #: Counts what is kept between the tokens, at its largest; called outside every window.
    cache_bytes: Callable[[], int] | None = None


class Phase(Protocol):
    """Opens a timed window inside a request: `with phase("prefill", tokens=512): ...`."""

    def __call__(self, name: str, *, tokens: int = 0, samples: int = 0) -> AbstractContextManager[None]:
        """Both ends are synchronised with the device."""


@frozen(kw_only=True)
class WorkloadRequest:
    """What a modality is asked to prepare. `stages` holds the options of each stage that will run, by name."""

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
        """Serve one request with a fixed amount of work; windows for its phases are opened with `phase`."""

    def quality(self, model: nn.Module, stage: str) -> Mapping[str, Metric]:
        """Held-out quality after a stage, by metric name, with whatever floor a reader should compare with."""

    # A workload whose outputs are to be looked at may also have
    #     def artifacts(self, model: nn.Module, stage: str) -> Mapping[str, bytes]
    # called after `quality`: files such as "samples.png" by name, which are saved beside the result. What each shows is
    # told by `facts["artifacts"]`, a sentence by name, which `eflm report` puts below it.


class Modality(Protocol):
    """Turns a model id, path or preset into a workload."""

    def prepare(self, request: WorkloadRequest) -> Workload:
        """Read data, train or load the tokenizer, and so on. Raises DataError or ModelError."""


# --- metrics ------------------------------------------------------------------------------------------


class MetricCollector(Protocol):
    """Computes metrics of one stage from its record, in the watching process."""

    def collect(self, record: StageRecord) -> Mapping[str, Metric]:
        """Metrics by name, as the card announces them; leave out those that do not apply to this stage."""
