"""A third-party plugin of every kind takes part in a run or in the command line like a built-in plugin."""

from __future__ import annotations

import pytest
import torch
from attrs import evolve

import eflm
from eflm import hookimpl
from eflm.controller.collect import collect
from eflm.controller.run import run
from eflm.planning.compose import compose
from eflm.registry.kinds import kinds
from eflm.registry.registry import Registry
from eflm.testing.metric import record_of
from eflm_plugins.moe.layer import MoeLayer
from eflm_schemas import (
    AdapterCard,
    AttentionCard,
    CommandCard,
    MetricCard,
    MetricInfo,
    ModalityCard,
    MoeRouterCard,
    ObserverCard,
    PowerSourceCard,
    Preset,
    QuantizerCard,
    Ref,
    RunSpec,
)
from support.known import PIECE, Known
from support.third_party import FailingRecorder, Recorder

ABOUT = {"summary": "for a test", "source": "tests/support/third_party.py"}


def ref(name: str) -> Ref:
    return Ref(f"support.third_party:{name}")


class ThirdParty:
    """A manifest with a card for every hook."""

    @hookimpl
    def eflm_attention(self):
        return [AttentionCard(name="averaging", factory=ref("Averaging"), **ABOUT)]

    @hookimpl
    def eflm_moe_router(self):
        config = ref("RoundRobinOptions")
        return [MoeRouterCard(name="robin", factory=ref("RoundRobin"), config=config, **ABOUT)]

    @hookimpl
    def eflm_adapter(self):
        return [AdapterCard(name="norms", factory=ref("NormsOnly"), trains_base=True, **ABOUT)]

    @hookimpl
    def eflm_quantizer(self):
        return [QuantizerCard(name="fp64", factory=ref("Double"), bits=64, **ABOUT)]

    @hookimpl
    def eflm_modality_loader(self):
        presets = (Preset(name="line", summary="one line"),)
        return [ModalityCard(name="lines", factory=ref("Lines"), presets=presets, **ABOUT)]

    @hookimpl
    def eflm_metric_collector(self):
        info = MetricInfo(name="steps", unit="steps", better="neither", definition="steps measured")
        return [MetricCard(name="counting", factory=ref("Steps"), metrics=(info,), **ABOUT)]

    @hookimpl
    def eflm_power_sources(self):
        return [PowerSourceCard(name="constant", factory=ref("ConstantPower"), **ABOUT)]

    @hookimpl
    def eflm_commands(self):
        return [CommandCard(name="hello", factory=Ref("third_party_command:hello"), **ABOUT)]

    @hookimpl
    def eflm_observers(self):
        return [
            ObserverCard(name="recorder", factory=ref("Recorder"), **ABOUT),
            ObserverCard(name="failing", factory=ref("FailingRecorder"), **ABOUT),
        ]


@pytest.fixture
def registry():
    registry = eflm.load_plugins()
    registry.register(ThirdParty(), distribution="third-party", version="1.0")
    return registry


def test_every_kind_has_a_hook_here(registry):
    ours = {e.card.kind for e in registry.entries() if e.origin.distribution == "third-party"}
    assert ours == {row.name for row in kinds()}


def test_eflm_attention(registry):
    model = eflm.build(attention="averaging", registry=registry)
    layers = model.model.layers
    assert {type(layer.self_attn).__name__ for layer in layers} == {"Averaging"}
    assert torch.isfinite(model(torch.arange(8)[None]).logits).all()


def test_eflm_moe_router(registry):
    model = eflm.build(moe="robin", settings={"robin.num_experts": 2}, registry=registry)
    mlps = [layer.mlp for layer in model.model.layers]
    assert all(isinstance(mlp, MoeLayer) and len(mlp.experts) == 2 for mlp in mlps)
    assert torch.isfinite(model(torch.arange(8)[None]).logits).all()


def test_eflm_adapter(registry):
    model = eflm.build(peft="norms", registry=registry)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained
    assert all("norm" in name for name in trained)


def test_eflm_quantizer(registry):
    model = eflm.build(quant="fp64", registry=registry)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}


def test_eflm_modality_loader(registry):
    model = eflm.build(model="line", modality="lines", registry=registry)
    assert isinstance(model, torch.nn.Linear)


def test_eflm_metric_collector(registry):
    plan = compose(RunSpec(stages=("infer",)), registry)
    metrics, flags = collect(record_of("infer", seconds=[0.1, 0.2]), plan.metrics)
    assert metrics["steps"].value == 2
    assert flags == []
    origins = {chosen.card.name: chosen.origin.distribution for chosen in plan.metrics}
    assert origins["counting"] == "third-party"


def test_eflm_power_sources_and_eflm_observers(site, discover, tmp_path, monkeypatch):
    site.install("known-amounts", PIECE.read_text())
    discover()
    for observer in (Recorder, FailingRecorder):
        monkeypatch.setattr(observer, "calls", [])
    registry = Registry()  # without the power sources of this machine
    registry.register(ThirdParty(), distribution="third-party", version="1.0")

    plan = Known(tmp_path / "log").plan("infer", settings={"known.seconds": 0.1})
    result = run(evolve(plan, spec=evolve(plan.spec, isolation="none")), registry)

    assert result.status == "ok", result.reason
    power = result.stages["infer"].metrics["AEC"]
    assert power.value == pytest.approx(40, rel=0.2)
    assert power.provenance == "counter"
    key = result.stages["infer"].key
    assert Recorder.calls == [
        ("run_started", "amounts", "infer"),
        ("stage_started", "infer", key),
        ("stage_finished", "infer", key),
        ("run_finished", "ok"),
    ]
    # One that fails is not called again.
    assert FailingRecorder.calls == [("run_started", "amounts", "infer")]
    [flag] = [flag for flag in result.flags if flag.name == "observer_failed"]
    for fact in ("observer/failing (third-party 1.0)", "stage_started", "ConnectionError"):
        assert fact in flag.detail


# --- commands ---------------------------------------------------------------------------------------------

COMMANDS = """
    import eflm
    from eflm_schemas import CommandCard, Ref

    @eflm.hookimpl
    def eflm_commands():
        def card(name, target, **fields):
            return CommandCard(name=name, summary=f"the summary of {name}", factory=Ref(target), **fields)
        return [
            card("hello", "third_party_command:hello"),
            card("raising", "third_party_command:raising"),
            card("absent", "third_party_command:absent"),
            card("no-command", "third_party_command:number"),
            card("needy", "third_party_command:hello", requires=("no_such_module",), extra="more"),
            card("compare", "third_party_command:hello"),
        ]
"""
IMPLEMENTATION = """
import click

number = 5

@click.command()
@click.option("--name", default="world")
def hello(name):
    click.echo(f"hello {name}")

@click.command()
def raising():
    raise KeyError("by design")
"""


@pytest.fixture
def commands(site):
    site.install("eflm-commands", COMMANDS, version="0.3")
    (site.root / "third_party_command.py").write_text(IMPLEMENTATION)


def test_eflm_commands(commands, cli):
    listed = cli("--help").stdout
    assert "the summary of hello" in listed
    # What cannot be used here says what it needs; a narrow terminal breaks the line.
    assert "eflm-commands[more]" in "".join(listed.split())
    assert cli("hello", "--name", "eflm").stdout == "hello eflm\n"
    assert "--name" in cli("hello", "--help").stdout
    # A command of eflm takes precedence over one of the same name.
    assert "the summary of compare" not in listed
    assert "hello" not in cli("compare", "--help").stdout


@pytest.mark.parametrize(
    ("name", "code", "facts"),
    [
        ("raising", 1, ["KeyError", "by design"]),
        ("absent", 2, ["AttributeError"]),
        ("no-command", 2, ["third_party_command:number"]),
        ("needy", 2, ["eflm-commands[more]"]),
    ],
)
def test_a_command_that_fails_names_its_plugin_and_distribution(commands, cli, name, code, facts):
    done = cli(name)
    assert done.exit_code == code
    for fact in (f"command/{name} (eflm-commands 0.3)", *facts):
        assert fact in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_help_with_third_party_commands_imports_nothing_heavy(commands, site, eflm, heavy):
    site.poison(*heavy)
    (site.root / "third_party_command.py").write_text("import torch\n")
    done = eflm("--help")
    assert done.returncode == 0, done.stderr
    assert "the summary of hello" in done.stdout
