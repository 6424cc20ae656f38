"""One small plugin per kind, as the files that docs/architecture.md lists under "What to add where".

The text of a card is inserted into the tuple of an existing cards.py, and that of options is appended to options.py.
"""

from __future__ import annotations

from textwrap import dedent, indent

from attrs import frozen


@frozen(kw_only=True)
class Addition:
    """A plugin and its files. `limit` is the largest number of files that adding one may change."""

    heading: str  #: of its list on the page
    address: str  #: "kind/name"
    limit: int
    files: dict[str, str]  #: path -> content of a new file, or what is added to an existing one
    spec: str  #: arguments of a RunSpec in which it takes part

    @property
    def name(self) -> str:
        return self.address.partition("/")[2]


def _code(text: str) -> str:
    return dedent(text).lstrip("\n")


def _card(text: str) -> str:
    return indent(_code(text), "    ")


QUANTIZER = Addition(
    heading="A quantizer",
    address="quantizer/rounded",
    limit=5,
    spec='techniques={"quant": "rounded"}, settings={"rounded.levels": 7}',
    files={
        "plugins/eflm_plugins/quantizers/rounded.py": _code('''
            """Rounds the weights of linear layers to a grid. Implements the card `rounded`."""

            import torch


            class Rounded:
                """Weights on a grid of 2 × levels + 1 values per matrix."""

                def __init__(self, options):
                    self.levels = options.levels

                def load_kwargs(self, device):
                    return {}

                @torch.no_grad()
                def apply(self, model, targets, device):
                    for name in targets.linears:
                        weight = model.get_submodule(name).weight
                        step = weight.abs().max() / self.levels
                        weight.copy_((weight / step).round() * step)
                    return model.to(device)
        '''),
        "plugins/eflm_plugins/quantizers/cards.py": _card("""
            QuantizerCard(
                name="rounded",
                summary="weights on a grid of equal steps",
                source="a test",
                factory=Ref("eflm_plugins.quantizers.rounded:Rounded"),
                config=Ref("eflm_plugins.quantizers.options:RoundedOptions"),
                requires=("torch",),
                extra="llm",
                bits=8,
            ),
        """),
        "plugins/eflm_plugins/quantizers/options.py": _code('''


            @frozen(kw_only=True)
            class RoundedOptions:
                """Options of rounded."""

                levels: int = option(127, "steps from zero to the largest weight", ge=1)
        '''),
        "tests/plugins/quantizers/test_rounded.py": _code("""
            import eflm


            def test_weights_are_on_the_grid():
                model = eflm.build(quant="rounded", settings={"rounded.levels": 7})
                weight = model.model.layers[0].mlp.up_proj.weight
                assert 2 < len((weight / weight.abs().max() * 7).round(decimals=3).unique()) <= 15
        """),
    },
)

METRIC = Addition(
    heading="A metric",
    address="metric/median",
    limit=4,
    spec="",
    files={
        "plugins/eflm_plugins/metrics/median.py": _code('''
            """The median time per step or request."""

            from statistics import median

            from eflm_schemas import Metric


            class MedianLatency:
                """The median of the measured windows."""

                def collect(self, record):
                    seconds = [window.seconds for window in record.measured()]
                    if not seconds:
                        return {}
                    return {
                        "median_latency": Metric(value=median(seconds), unit="s", provenance="clock", n=len(seconds))
                    }


            def collector(_options):
                return MedianLatency()
        '''),
        "plugins/eflm_plugins/metrics/cards.py": _card("""
            MetricCard(
                name="median",
                summary="median time per step or request",
                source="a test",
                factory=Ref("eflm_plugins.metrics.median:collector"),
                metrics=(
                    MetricInfo("median_latency", "s", "lower", "median time of a window", label="median latency"),
                ),
            ),
        """),
        "tests/plugins/metrics/test_median.py": _code("""
            from eflm.testing.metric import MetricConformance, record_of
            from eflm_plugins.metrics.cards import METRICS
            from eflm_plugins.metrics.median import collector


            class TestMedian(MetricConformance):
                card = next(card for card in METRICS if card.name == "median")


            def test_the_median_is_that_of_the_measured_windows():
                found = collector(None).collect(record_of("infer", seconds=[0.3, 0.1, 0.2]))
                assert abs(found["median_latency"].value - 0.2) < 1e-6
        """),
    },
)

ATTENTION = Addition(
    heading="An attention variant",
    address="attention/tempered",
    limit=7,
    spec='techniques={"attention": "tempered"}, settings={"tempered.temperature": 2.0}',
    files={
        "plugins/eflm_plugins/attention/tempered.py": _code('''
            """Multi-head attention whose scores are divided by a temperature. Implements the card `tempered`."""

            from eflm_plugins.attention.dense.module import GroupedQueryAttention


            class TemperedAttention(GroupedQueryAttention):
                """softmax(q kᵀ / (temperature √D)) v."""

                def __init__(self, geometry, options):
                    super().__init__(geometry, geometry.num_attention_heads)
                    self.temperature = options.temperature

                def forward(self, hidden_states, *, rotary=None, **keywords):
                    def tempered(states):
                        rotated = states if rotary is None else rotary(states)
                        return rotated / self.temperature**0.5

                    return super().forward(hidden_states, rotary=tempered, **keywords)
        '''),
        "plugins/eflm_plugins/attention/tempered_naive.py": _code('''
            """Naive reference of `tempered`, in loops."""

            import torch


            def naive(module, hidden_states, *, rotary=None, padding_mask=None, bias=None):
                """The layer's output, one query and head at a time."""
                size, length = module.geometry.head_dim, hidden_states.shape[1]
                query, key, value = (
                    project(hidden_states).unflatten(-1, (-1, size)).transpose(1, 2)
                    for project in (module.q_proj, module.k_proj, module.v_proj)
                )
                if rotary is not None:
                    query, key = rotary(query), rotary(key)
                batches = []
                for b in range(len(hidden_states)):
                    rows = []
                    for t in range(length):
                        seen = [s for s in range(t + 1) if s == t or padding_mask is None or padding_mask[b, s]]
                        heads = []
                        for h in range(query.shape[1]):
                            scores = key[b, h, seen] @ query[b, h, t] / (module.temperature * size**0.5)
                            if bias is not None:
                                scores = scores + bias[0, h, t, seen]
                            heads.append(torch.softmax(scores, 0) @ value[b, h, seen])
                        rows.append(torch.cat(heads))
                    batches.append(torch.stack(rows))
                return module.o_proj(torch.stack(batches))
        '''),
        "plugins/eflm_plugins/attention/tempered_cost.py": _code('''
            """Cache size and operations of `tempered`: those of mha."""

            from eflm_plugins.attention.dense.cost import multi_head


            def cost(_options):
                return multi_head(None)
        '''),
        "plugins/eflm_plugins/attention/cards.py": _card("""
            AttentionCard(
                name="tempered",
                summary="multi-head attention with a temperature",
                source="a test",
                factory=Ref("eflm_plugins.attention.tempered:TemperedAttention"),
                config=Ref("eflm_plugins.attention.options:TemperedOptions"),
                naive=Ref("eflm_plugins.attention.tempered_naive:naive"),
                cost=Ref("eflm_plugins.attention.tempered_cost:cost"),
                requires=("torch", "transformers"),
                extra="llm",
            ),
        """),
        "plugins/eflm_plugins/attention/options.py": _code('''


            @frozen(kw_only=True)
            class TemperedOptions:
                """Options of tempered."""

                temperature: float = option(1.0, "divides the scores", gt=0)
        '''),
        "tests/plugins/attention/test_tempered.py": _code("""
            from eflm.testing.attention import AttentionConformance
            from eflm_plugins.attention.options import TemperedOptions
            from eflm_plugins.attention.tempered import TemperedAttention
            from eflm_plugins.attention.tempered_naive import naive


            class TestTempered(AttentionConformance):
                naive = staticmethod(naive)

                def build(self, geometry):
                    return TemperedAttention(geometry, TemperedOptions(temperature=2.0))
        """),
    },
)

MODALITY = Addition(
    heading="A modality",
    address="modality/curve",
    limit=10,
    spec='model="curve", stages=("pretrain", "infer"), techniques={"quant": "bf16"}, settings={"curve.width": 8}',
    files={
        "plugins/eflm_plugins/modalities/curve.py": _code('''
            """A modality whose model learns a curve y = f(x)."""

            import torch
            from torch import nn

            from eflm.registry.contracts import Batch, Generated
            from eflm_plugins.data.curve import points
            from eflm_plugins.hosts.curve import CurveHost
            from eflm_schemas import Metric


            class CurveModality:
                def __init__(self, options):
                    self.options = options

                def prepare(self, request):
                    return CurveWorkload(request, self.options)


            class CurveWorkload:
                """A model with one hidden layer, trained on points of the curve."""

                host = CurveHost()
                flags = ()

                def __init__(self, request, options):
                    self.request, self.options = request, options
                    self.facts = {"data": "sine"}

                def build_model(self, *, from_scratch, load_kwargs):
                    torch.manual_seed(self.request.seed)
                    return nn.Sequential(nn.Linear(1, self.options.width), nn.Tanh(), nn.Linear(self.options.width, 1))

                def batches(self, stage):
                    count = self.request.stages[stage].batch_size
                    while True:
                        yield Batch(inputs=points(count), samples=count, tokens=count)

                def loss(self, model, batch):
                    x, y = batch.inputs
                    return (model(x) - y).square().mean()

                def requests(self):
                    while True:
                        yield Batch(inputs=points(4), samples=4, tokens=4)

                def generate(self, model, request, phase):
                    x = request.inputs[0].to(next(model.parameters()).dtype)
                    with phase("decode", tokens=4), torch.no_grad():
                        return Generated(outputs=model(x), samples=4, tokens=4)

                def quality(self, model, stage):
                    x, y = points(64)
                    with torch.no_grad():
                        error = (model(x.to(next(model.parameters()).dtype)) - y).abs().max().item()
                    return {"curve_error": Metric(value=error, unit="y", provenance="evaluated", n=64)}
        '''),
        "plugins/eflm_plugins/modalities/cards.py": _card("""
            ModalityCard(
                name="curve",
                summary="small networks that learn a curve",
                source="a test",
                factory=Ref("eflm_plugins.modalities.curve:CurveModality"),
                config=Ref("eflm_plugins.modalities.options:CurveOptions"),
                requires=("torch",),
                extra="llm",
                presets=(Preset(name="curve", summary="one hidden layer", settings={"pretrain.steps": 20}),),
                causal=False,
            ),
        """),
        "plugins/eflm_plugins/modalities/options.py": _code('''


            @frozen(kw_only=True)
            class CurveOptions:
                """Options of curve."""

                width: int = option(16, "units of the hidden layer", ge=1)
        '''),
        "plugins/eflm_plugins/hosts/curve.py": _code('''
            """The host of `curve`: its models have linear layers and no attention."""

            from torch import nn

            from eflm import ModelError
            from eflm.registry.contracts import Targets


            class CurveHost:
                def attention_geometries(self, model):
                    return ()

                def replace_attention(self, model, build, *, convert, recipe, plain=False):
                    raise ModelError("a curve model has no attention")

                def replace_mlps(self, model, build, *, convert, recipe):
                    raise ModelError("a curve model has no MLP blocks")

                def targets(self, model):
                    names = tuple(n for n, module in model.named_modules() if isinstance(module, nn.Linear))
                    return Targets(layers=(), linears=names, attention_linears=())
        '''),
        "plugins/eflm_plugins/data/curve.py": _code('''
            """Points of a sine curve."""

            import torch


            def points(count):
                """x and y, each of shape (count, 1)."""
                x = torch.linspace(-3, 3, count)[:, None]
                return x, torch.sin(x)
        '''),
        "plugins/eflm_plugins/metrics/curve.py": _code('''
            """The largest error of a learned curve, as the workload evaluated it."""


            class CurveError:
                def collect(self, record):
                    return {name: record.quality[name] for name in ("curve_error",) if name in record.quality}


            def collector(_options):
                return CurveError()
        '''),
        "plugins/eflm_plugins/metrics/cards.py": _card("""
            MetricCard(
                name="curve",
                summary="largest error of a learned curve",
                source="a test",
                factory=Ref("eflm_plugins.metrics.curve:collector"),
                metrics=(MetricInfo("curve_error", "y", "lower", "max |f(x) - y|", label="largest error"),),
            ),
        """),
        "tests/plugins/modalities/test_curve.py": _code("""
            import eflm


            def test_a_run_trains_and_evaluates():
                settings = {"infer.requests": 2, "infer.seconds": 0}
                stages = ["pretrain", "infer"]
                run = eflm.bench("curve", stages=stages, quant="bf16", settings=settings, isolation="none")
                assert run.status == "ok", run.reason
                for stage in run.stages.values():
                    assert 0 < stage.metrics["curve_error"].value < 2
                assert run.stages["infer"].metrics["compression"].value > 1
        """),
        "docs/curve.md": "# Curves\n\n`--model curve` learns a sine curve.\n",
    },
)

ADDITIONS = (QUANTIZER, METRIC, ATTENTION, MODALITY)
