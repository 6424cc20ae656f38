"""Composition of the built-in cards, and of cards made here for what the built-ins have no case of."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import types

import pytest
from attrs import evolve, frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from eflm import hookimpl, load_plugins
from eflm.errors import PluginError, UsageError
from eflm.planning.compose import compose
from eflm.registry.registry import Registry
from eflm_schemas import (
    STAGES,
    AdapterCard,
    AttentionCard,
    Conflict,
    MetricCard,
    MetricInfo,
    ModalityCard,
    MoeRouterCard,
    Preset,
    QuantizerCard,
    Ref,
    RunSpec,
    Techniques,
    option,
)

PRETRAINED = "some-org/some-model"


def asked(model: str = "nano", *, stages=(), set=None, modality: str = "llm", **techniques) -> RunSpec:
    return RunSpec(
        model=model,
        modality=modality,
        stages=stages,
        settings=set or {},
        techniques=Techniques(**techniques),
    )


# --- what is settled --------------------------------------------------------------------------------------


def test_a_preset_runs_every_stage_from_random_weights_and_fine_tunes_in_full(registry):
    plan = compose(asked(), registry)
    assert tuple(plan.stages) == plan.spec.stages == STAGES
    assert plan.from_scratch
    assert plan.adapter.card.name == plan.spec.techniques.peft == "full"
    assert plan.attention is plan.moe is plan.quantizer is None
    assert plan.modality.card.name == "llm"
    serving = [card for card in registry.cards("metric") if not card.modalities or "llm" in card.modalities]
    assert [chosen.card for chosen in plan.metrics] == serving


def test_a_pretrained_model_keeps_its_weights(registry):
    plan = compose(asked(PRETRAINED, attention="mqa"), registry)
    assert tuple(plan.stages) == ("finetune", "infer")
    assert not plan.from_scratch
    assert compose(asked(PRETRAINED, stages=("pretrain",)), registry).from_scratch


def test_stages_run_in_their_order_whatever_the_order_they_are_asked_in(registry):
    assert tuple(compose(asked(stages=("infer", "pretrain", "infer")), registry).stages) == (
        "pretrain",
        "infer",
    )


def test_without_fine_tuning_no_adapter_is_added(registry):
    assert compose(asked(stages=("pretrain", "infer")), registry).adapter is None


def test_a_build_gets_no_adapter_that_was_not_asked_for(registry):
    assert compose(asked(), registry, for_build=True).adapter is None
    assert compose(asked(peft="lora"), registry, for_build=True).adapter.card.name == "lora"
    # What int4 and the default adapter would be refused for is no obstacle here.
    assert compose(asked(quant="int4"), registry, for_build=True).quantizer.card.name == "int4"


def test_a_users_setting_wins_over_the_presets_which_wins_over_the_default(registry):
    preset = registry.get("modality", "llm").card.preset("nano").settings
    plan = compose(asked(attention="nsa", set={"nsa.window": "96"}), registry)
    assert plan.attention.options.window == plan.spec.settings["nsa.window"] == 96
    assert plan.stages["pretrain"].batch_size == preset["pretrain.batch_size"]
    assert plan.stages["pretrain"].weight_decay == 0.1
    assert compose(asked(PRETRAINED), registry).stages["finetune"].batch_size == 8
    # Settings of plugins that take no part do not burden the spec.
    assert not [key for key in plan.spec.settings if key.startswith(("mla.", "topk.", "freeze."))]


def techniques(registry):
    fields = {"attention": "attention", "moe": "moe", "peft": "adapter", "quant": "quantizer"}
    return {
        field: st.none() | st.sampled_from([card.name for card in registry.cards(kind)])
        for field, kind in fields.items()
    }


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_composing_a_composed_spec_changes_nothing(registry, data):
    spec = RunSpec(
        model=data.draw(st.sampled_from(["nano", PRETRAINED])),
        techniques=Techniques(**{k: data.draw(v) for k, v in techniques(registry).items()}),
        stages=tuple(data.draw(st.lists(st.sampled_from(STAGES), unique=True))),
        seed=data.draw(st.integers(0, 3)),
    )
    for_build = data.draw(st.booleans())
    try:
        plan = compose(spec, registry, for_build=for_build)
    except UsageError:
        return
    # Through JSON, as a result file keeps it.
    stored = evolve(plan.spec, settings=json.loads(json.dumps(plan.spec.settings)))
    assert compose(stored, registry, for_build=for_build) == plan


def test_exactly_the_combinations_that_the_cards_allow_compose(registry):
    kinds = ("attention", "moe", "adapter", "quantizer")
    total = refused = 0
    for attention, moe, adapter, quantizer in itertools.product(*(registry.entries(kind) for kind in kinds)):
        if any(entry.status != "ready" for entry in (attention, moe, adapter, quantizer)):
            continue
        total += 1
        names = [entry.card.name for entry in (attention, moe, adapter, quantizer)]
        spec = asked(**dict(zip(("attention", "moe", "peft", "quant"), names, strict=True)))
        clash = next((c for c in adapter.card.conflicts if c.plugin == quantizer.card.address), None)
        if clash:
            refused += 1
            with pytest.raises(UsageError, match=re.escape(clash.reason)):
                compose(spec, registry)
        elif not moe.card.causal:
            refused += 1
            with pytest.raises(UsageError, match="lets a token see later ones"):
                compose(spec, registry)
        elif adapter.card.trains_base and not quantizer.card.trainable:
            refused += 1
            with pytest.raises(UsageError, match="does not allow that"):
                compose(spec, registry)
        else:
            assert compose(spec, registry).techniques
    assert 0 < refused < total


# --- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (asked(attention="nsaa"), ["attention", "'nsaa'", "did you mean nsa?"]),
        (asked(modality="lm"), ["modality", "did you mean llm?"]),
        (asked(stages=("finetun",)), ["'finetun'", "did you mean finetune?"]),
        (
            asked(stages=("pretrain",), peft="lora"),
            ["adapter/lora", "finetune and infer", "--stage finetune"],
        ),
        (asked(PRETRAINED, attention="nsa"), ["attention/nsa", "--stage pretrain", "gqa", "mha", "mqa"]),
        (asked(peft="freeze", quant="fp16"), ["adapter/freeze", "quantizer/fp16", "lora", "bf16"]),
        (asked(peft="pissa", quant="int4"), ["adapter/pissa", "singular values", "pissa on bf16", "lora"]),
        (asked(peft="loha", quant="int4"), ["adapter/loha", "packed", "loraplus on int4", "loha on bf16"]),
        (asked(quant="fp16"), ["taken when no adapter is asked for", "dora", "fp32"]),
        (asked(set={"nsa.window": 8}), ["nsa.window", "does not take part", "--attention nsa"]),
        (asked(stages=("infer",), set={"finetune.steps": 1}), ["finetune does not run", "--stage finetune"]),
        (asked(set={"infr.requests": 1}), ["'infr'", "did you mean infer?"]),
        (asked(set={"window": 1}), ["PLUGIN.OPTION", "'window'"]),
        (asked(attention="nsa", set={"nsa.windo": 1}), ["'windo'", "did you mean nsa.window?"]),
        (asked(attention="nsa", set={"nsa.window": "wide"}), ["nsa.window", "int", "'wide'"]),
        (asked(set={"infer.requests": 0}), ["infer.requests", ">= 1", "0"]),
        (asked(attention="mha", set={"mha.heads": 2}), ["mha", "no options"]),
        (evolve(asked(), device="gpu"), ["'gpu'", "cuda"]),
    ],
    ids=lambda value: None if isinstance(value, RunSpec) else "-".join(value)[:40],
)
def test_a_refusal_says_what_why_and_what_instead(registry, spec, words):
    with pytest.raises(UsageError) as caught:
        compose(spec, registry)
    for word in words:
        assert word in str(caught.value)


REF = Ref("json:loads")


def plugin(*cards, **of):
    """A registry of these cards, and of the least that a run needs besides."""
    registry = Registry()
    manifests = {"eflm": [AdapterCard(name="full", summary="", source="", factory=REF, trains_base=True)]}
    for card in cards:
        manifests.setdefault(of.get("distribution", "eflm"), []).append(card)
    for distribution, offered in manifests.items():
        module = types.ModuleType(distribution)
        for hook in {card.hook for card in offered}:
            mine = [card for card in offered if card.hook == hook]
            setattr(module, hook, hookimpl(lambda mine=mine: mine))
        registry.register(module, distribution=distribution)
    return registry


def card(kind, name, **fields):
    return kind(name=name, summary="a test", source="a test", factory=REF, **fields)


TEXT = card(ModalityCard, "llm", presets=(Preset("nano", "", {}),))
IMAGE = card(
    ModalityCard, "dit", presets=(Preset("nano", "", {}),), causal=False, stages=("pretrain", "infer")
)
X = MetricInfo(name="X", unit="s", better="lower", definition="d")


@pytest.mark.parametrize(
    ("cards", "spec", "words"),
    [
        (
            [
                TEXT,
                card(AttentionCard, "both", causal=False, bidirectional=True),
                card(AttentionCard, "past"),
            ],
            asked(attention="both"),
            ["attention/both", "step by step", "choose past as the attention"],
        ),
        (
            [TEXT, card(MoeRouterCard, "choice", causal=False)],
            asked(moe="choice"),
            ["moe/choice", "step by step", "no installed moe would do"],
        ),
        (
            [IMAGE, card(AttentionCard, "past"), card(AttentionCard, "both", bidirectional=True)],
            asked(modality="dit", attention="past"),
            ["attention/past", "both ways", "choose both as the attention"],
        ),
        (
            [TEXT, IMAGE, card(AttentionCard, "seen", modalities=("dit",))],
            asked(attention="seen"),
            ["attention/seen", "modality llm", "dit"],
        ),
        (
            [IMAGE],
            asked(modality="dit", stages=("finetune",)),
            ["modality/dit", "finetune", "pretrain, infer"],
        ),
        (
            [evolve(IMAGE, unused_options=("infer.prompt_tokens",))],
            asked(modality="dit", set={"infer.prompt_tokens": "8"}),
            ["infer.prompt_tokens", "means nothing to modality/dit"],
        ),
        (
            [
                TEXT,
                card(AttentionCard, "a"),
                card(QuantizerCard, "q", bits=8, conflicts=[Conflict("attention/a", "it clashes", "take b")]),
            ],
            asked(attention="a", peft="full", quant="q"),
            ["quantizer/q", "attention/a", "it clashes", "take b"],
        ),
        (
            [
                TEXT,
                card(AttentionCard, "a", conflicts=[Conflict("peft/full", "it clashes", "take b")]),
            ],
            asked(attention="a"),
            ["attention/a", "adapter/full", "it clashes", "take b"],
        ),
    ],
    ids=[
        "causal",
        "causal-moe",
        "bidirectional",
        "modality",
        "stage",
        "unused",
        "conflict",
        "conflict-alias",
    ],
)
def test_cards_decide_what_is_refused(cards, spec, words):
    with pytest.raises(UsageError) as caught:
        compose(spec, plugin(*cards))
    for word in words:
        assert word in str(caught.value)


def test_a_conflict_with_an_option_refuses_that_value_only():
    clash = Conflict("modality/llm", "it clashes", "take b", options={"positions": "relative"})
    text = evolve(TEXT, config=Ref("eflm_plugins.modalities.options:LlmOptions"))
    cards = plugin(text, card(AttentionCard, "a", conflicts=[clash]))
    assert compose(asked(attention="a"), cards).attention is not None
    refused = r"attention/a cannot go together with llm\.positions=relative: it clashes; instead, take b"
    with pytest.raises(UsageError, match=refused):
        compose(asked(attention="a", set={"llm.positions": "relative"}), cards)


def test_a_part_that_attends_both_ways_is_kept_from_variants_of_the_past():
    model = evolve(
        TEXT,
        config=Ref(f"{__name__}:PartOptions"),
        bidirectional_where={"part": ("all", "eye")},
    )
    cards = plugin(model, card(AttentionCard, "past"), card(AttentionCard, "both", bidirectional=True))
    for chosen in ({}, {"llm.part": "eye"}):
        with pytest.raises(UsageError) as refusal:
            compose(asked(attention="past", set=chosen), cards)
        for words in (
            "attention/past",
            "both ways",
            "set llm.part to mouth, or choose both as the attention",
        ):
            assert words in str(refusal.value)
    assert compose(asked(attention="past", set={"llm.part": "mouth"}), cards).attention is not None
    assert compose(asked(attention="both"), cards).attention is not None


def test_a_plugin_that_needs_an_extra_says_what_to_install():
    needy = card(QuantizerCard, "q", bits=4, requires=("no_such_module",), extra="quant")
    with pytest.raises(PluginError, match=r"pip install 'eflm\[quant\]'"):
        compose(asked(quant="q"), plugin(TEXT, needy))


def test_metrics_take_part_where_they_fit_and_can_be_had():
    metrics = [
        card(MetricCard, "fits", metrics=[X]),
        card(MetricCard, "elsewhere", metrics=[X], modalities=("dit",)),
        card(MetricCard, "later", metrics=[X], stages=("finetune",)),
        card(MetricCard, "needy", metrics=[X], requires=("no_such_module",)),
        card(MetricCard, "averse", metrics=[X], conflicts=[Conflict("modality/llm", "why", "what")]),
    ]
    plan = compose(asked(stages=("infer",)), plugin(TEXT, *metrics))
    assert [chosen.card.name for chosen in plan.metrics] == ["fits"]


# --- names and settings that meet -------------------------------------------------------------------------


@frozen(kw_only=True)
class WidthOptions:
    width: int = option(4, "how wide", ge=1)


@frozen(kw_only=True)
class DepthOptions:
    width: int = option(7, "how wide", ge=5)
    depth: int = option(1, "how deep", ge=1)


@frozen(kw_only=True)
class PartOptions:
    part: str = option("all", "where techniques act", choices=("all", "eye", "mouth"))


WIDTH, DEPTH = Ref(f"{__name__}:WidthOptions"), Ref(f"{__name__}:DepthOptions")


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    # The suite's import mode leaves test modules out of sys.modules, and a Ref is resolved by name.
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or _module())


def _module():
    module = types.ModuleType(__name__)
    module.__dict__.update(WidthOptions=WidthOptions, DepthOptions=DepthOptions)
    return module


def test_one_name_in_two_kinds_is_told_apart_by_the_kind():
    registry = plugin(
        TEXT,
        card(AttentionCard, "twin", config=WIDTH),
        card(MetricCard, "twin", metrics=[X], config=DEPTH),
    )
    spec = asked(attention="twin", set={"twin.depth": 3})
    assert compose(spec, registry).metrics[0].options.depth == 3
    with pytest.raises(UsageError, match=r"write attention/twin\.width or metric/twin\.width"):
        compose(asked(attention="twin", set={"twin.width": 9}), registry)
    plan = compose(asked(attention="twin", set={"attention/twin.width": 9}), registry)
    assert (plan.attention.options.width, plan.metrics[0].options.width) == (9, 7)
    assert compose(plan.spec, registry) == plan


def test_another_distributions_plugin_of_the_same_name_can_be_chosen():
    registry = plugin(TEXT, card(AttentionCard, "a", config=WIDTH))
    other = types.ModuleType("other")
    other.eflm_attention = hookimpl(lambda: [card(AttentionCard, "a", config=DEPTH)])
    registry.register(other, distribution="eflm-other")
    with pytest.raises(UsageError, match="eflm:a' or 'eflm-other:a'"):
        compose(asked(attention="a"), registry)
    plan = compose(asked(attention="eflm-other:a", set={"a.depth": 2}), registry)
    assert plan.attention.origin.distribution == "eflm-other"
    assert plan.spec.techniques.attention == "eflm-other:a"
    assert compose(plan.spec, registry) == plan


def test_a_strangers_adapter_called_full_does_not_become_the_default():
    registry = plugin(TEXT, card(AdapterCard, "full"), distribution="eflm-other")
    plan = compose(asked(), registry)
    assert plan.adapter.origin.distribution == "eflm"
    assert compose(plan.spec, registry) == plan


def test_a_presets_fault_is_laid_at_its_own_door():
    wrong = card(ModalityCard, "llm", presets=(Preset("nano", "", {"a.width": 0, "b.width": 1}),))
    attention = card(AttentionCard, "a", config=WIDTH)
    with pytest.raises(PluginError, match=r"preset of modality/llm is at fault: a\.width must be >= 1"):
        compose(asked(attention="a"), plugin(wrong, attention))
    assert compose(asked(), plugin(wrong, attention)).attention is None


def test_a_preset_does_not_force_its_values_on_a_stranger_of_the_same_name():
    preset = card(ModalityCard, "llm", presets=(Preset("nano", "", {"a.width": 4, "a.depth": 3}),))
    registry = plugin(preset)
    other = types.ModuleType("other")
    other.eflm_attention = hookimpl(lambda: [card(AttentionCard, "a", config=DEPTH)])
    registry.register(other, distribution="eflm-other")
    options = compose(asked(attention="a"), registry).attention.options
    assert (options.width, options.depth) == (7, 1)


@pytest.mark.parametrize(
    ("config", "words"),
    [("json:nothing", "cannot be imported"), ("json:loads", "is not an attrs class")],
)
def test_options_that_cannot_be_had_are_the_plugins_fault(config, words):
    with pytest.raises(PluginError, match=words):
        compose(asked(attention="a"), plugin(TEXT, card(AttentionCard, "a", config=Ref(config))))


def test_composing_imports_nothing_heavy(heavy):
    code = f"""
import sys
from eflm import load_plugins
from eflm.planning.compose import compose
from eflm_schemas import RunSpec, Techniques
compose(RunSpec(techniques=Techniques(attention="nsa", moe="topk", peft="dora")), load_plugins())
print([name for name in {heavy!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


REQUIRED = "import attrs\n\n@attrs.frozen\nclass C:\n    x: int"


@pytest.mark.parametrize("body", ["raise SystemExit(0)", "C = 5", REQUIRED])
def test_a_metric_with_broken_options_is_left_out_and_named(body, tmp_path, monkeypatch):
    (tmp_path / "brokenopts.py").write_text(body)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "brokenopts", raising=False)

    class Manifest:
        @hookimpl
        def eflm_metric_collector(self):
            return [
                MetricCard(
                    name="hurt",
                    summary="",
                    source="",
                    factory=Ref("brokenopts:C"),
                    config=Ref("brokenopts:C"),
                    metrics=(),
                )
            ]

    registry = load_plugins()
    registry.register(Manifest(), distribution="hurt-package")
    plan = compose(RunSpec(), registry)
    assert "hurt" not in [chosen.card.name for chosen in plan.metrics]
    assert any("hurt-package" in reason for reason in plan.left_out)
