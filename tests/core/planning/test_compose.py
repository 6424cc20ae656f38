"""Composition of the built-in cards, and of cards made here for cases that the built-in ones do not have."""

from __future__ import annotations

import itertools
import json
import re
import sys
import types

import pytest
from attrs import evolve, frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from eflm import hookimpl, load_plugins
from eflm.errors import PluginError, UsageError
from eflm.planning.compose import compose
from eflm.registry.kinds import technique_kinds
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
    option,
)

PRETRAINED = "some-org/some-model"


def asked(model: str = "nano", *, stages=(), set=None, modality: str = "llm", **techniques) -> RunSpec:
    return RunSpec(
        model=model,
        modality=modality,
        stages=stages,
        settings=set or {},
        techniques=techniques,
    )


# --- what a plan contains --------------------------------------------------------------------------------------


def test_a_preset_runs_every_stage_from_random_weights_and_fine_tunes_in_full(registry):
    plan = compose(asked(), registry)
    assert tuple(plan.stages) == plan.spec.stages == STAGES
    assert plan.from_scratch
    assert plan.technique("adapter").card.name == plan.spec.techniques["peft"] == "full"
    assert [chosen.card.kind for chosen in plan.techniques] == ["adapter"]
    assert plan.modality.card.name == "llm"
    serving = [card for card in registry.cards("metric") if not card.modalities or "llm" in card.modalities]
    assert [chosen.card for chosen in plan.metrics] == serving


def test_a_pretrained_model_keeps_its_weights(registry):
    plan = compose(asked(PRETRAINED, attention="mqa"), registry)
    assert tuple(plan.stages) == ("finetune", "infer")
    assert not plan.from_scratch
    assert compose(asked(PRETRAINED, stages=("pretrain",)), registry).from_scratch


def test_stages_run_in_their_order(registry):
    assert tuple(compose(asked(stages=("infer", "pretrain", "infer")), registry).stages) == (
        "pretrain",
        "infer",
    )


def test_without_fine_tuning_no_adapter_is_added(registry):
    assert compose(asked(stages=("pretrain", "infer")), registry).technique("adapter") is None


def test_a_build_has_only_the_techniques_that_were_named(registry):
    assert compose(asked(), registry, for_build=True).technique("adapter") is None
    assert compose(asked(peft="lora"), registry, for_build=True).technique("adapter").card.name == "lora"
    # int4 is refused with the default adapter, which is not added here.
    assert compose(asked(quant="int4"), registry, for_build=True).technique("quantizer").card.name == "int4"


def test_a_users_setting_overrides_the_presets_and_the_presets_the_default(registry):
    preset = registry.get("modality", "llm").card.preset("nano").settings
    plan = compose(asked(attention="nsa", set={"nsa.window": "96"}), registry)
    assert plan.technique("attention").options.window == plan.spec.settings["nsa.window"] == 96
    assert plan.stages["pretrain"].batch_size == preset["pretrain.batch_size"]
    assert plan.stages["pretrain"].weight_decay == 0.1
    assert compose(asked(PRETRAINED), registry).stages["finetune"].batch_size == 8
    # The spec has no settings of plugins that do not take part.
    assert not [key for key in plan.spec.settings if key.startswith(("mla.", "topk.", "freeze."))]


def techniques(registry):
    names = {row.flag: [card.name for card in registry.cards(row.name)] for row in technique_kinds()}
    return st.fixed_dictionaries({}, optional={flag: st.sampled_from(of) for flag, of in names.items()})


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_composing_a_composed_spec_changes_nothing(registry, data):
    spec = RunSpec(
        model=data.draw(st.sampled_from(["nano", PRETRAINED])),
        techniques=data.draw(techniques(registry)),
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


def test_exactly_the_pairs_that_the_cards_allow_compose(registry):
    total = refused = 0
    for (kind, flag), (other_kind, other_flag) in itertools.combinations(FLAGS.items(), 2):
        for one, other in itertools.product(registry.entries(kind), registry.entries(other_kind)):
            if (one.status, other.status) != ("ready", "ready"):
                continue
            total += 1
            chosen = {flag: one.card.name, other_flag: other.card.name}
            stages = () if "peft" in chosen else ("pretrain", "infer")
            if _allowed(one.card, other.card):
                plan = compose(asked(stages=stages, **chosen), registry)
                assert plan.spec.techniques == {**chosen, **({} if stages else {"peft": chosen["peft"]})}
            else:
                refused += 1
                with pytest.raises(UsageError):
                    compose(asked(stages=stages, **chosen), registry)
    assert 0 < refused < total


FLAGS = {"attention": "attention", "moe": "moe", "quantizer": "quant", "adapter": "peft"}


def _allowed(*cards):
    """Whether the cards say that they can be combined in a causal model that is trained from random weights."""
    conflicts = {conflict.plugin for card in cards for conflict in card.conflicts if not conflict.options}
    untrainable = any(card.kind == "quantizer" and not card.trainable for card in cards)
    trains_base = any(card.kind == "adapter" and card.trains_base for card in cards)
    return (
        not conflicts & {card.address for card in cards}
        and all(card.causal for card in cards if card.kind in ("attention", "moe"))
        and not (untrainable and trains_base)
    )


# --- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "facts"),
    [
        (asked(attention="nsaa"), ["attention", "'nsaa'", "did you mean nsa?"]),
        (asked(modality="lm"), ["modality", "did you mean llm?"]),
        (asked(stages=("finetun",)), ["'finetun'", "did you mean finetune?"]),
        (
            asked(stages=("pretrain",), peft="lora"),
            ["adapter/lora", "finetune and infer", "--stage pretrain --stage finetune"],
        ),
        (asked(PRETRAINED, attention="nsa"), ["attention/nsa", "--stage pretrain", "gqa", "mha", "mqa"]),
        (asked(peft="freeze", quant="fp16"), ["adapter/freeze", "quantizer/fp16", "lora", "bf16"]),
        (asked(peft="pissa", quant="int4"), ["adapter/pissa", "quantizer/int4", "bf16", "lora"]),
        (asked(peft="loha", quant="int4"), ["adapter/loha", "quantizer/int4", "bf16", "loraplus"]),
        (asked(quant="fp16"), ["adapter/full", "default", "dora", "fp32"]),
        (asked(set={"nsa.window": 8}), ["nsa.window", "--attention nsa"]),
        (asked(PRETRAINED, set={"nsa.window": 8}), ["nsa.window", "cannot start from a pretrained model"]),
        (asked(stages=("infer",), set={"finetune.steps": 1}), ["finetune", "--stage finetune --stage infer"]),
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
def test_a_refusal_names_the_plugin_and_what_would_work(registry, spec, facts):
    with pytest.raises(UsageError) as caught:
        compose(spec, registry)
    assert [fact for fact in facts if fact not in str(caught.value)] == []


@pytest.mark.parametrize(
    "spec",
    [
        asked(quant="int4", peft="full"),
        asked(quant="fp16", peft="freeze"),
        asked(quant="int4"),
        asked(PRETRAINED, attention="nsa"),
        asked(PRETRAINED, attention="nsa", quant="int4", peft="lora"),
        asked("dit", modality=None, attention="mamba2"),
        asked("dit", modality=None, stages=("pretrain",), quant="bf16"),
        evolve(asked("dit", modality=None, stages=("infer",)), processes=2),
        evolve(asked(stages=("infer",)), processes=2),
        asked(moe="expert-choice", quant="int4", peft="lora"),
    ],
    ids=lambda spec: "-".join((spec.model, *spec.techniques.values())).replace("/", "-"),
)
def test_every_technique_and_stage_that_a_refusal_suggests_composes(registry, spec):
    with pytest.raises(UsageError) as caught:
        compose(spec, registry)
    message = str(caught.value)
    choices = re.findall(r"choose (?:one of )?([\w.+, -]+?) as the (\w+)", message)
    for names, kind in choices:
        for name in names.split(", "):
            changed = evolve(spec, techniques={**spec.techniques, FLAGS[kind]: name})
            assert compose(changed, registry).technique(kind).card.name == name
    if stages := tuple(re.findall(r"--stage (\w+)", message)):
        assert compose(evolve(spec, stages=stages), registry).spec.stages == stages
    assert choices or stages


def test_a_stage_that_is_suggested_is_one_of_the_model(registry):
    with pytest.raises(UsageError) as caught:
        compose(asked("dit", modality=None, set={"finetune.steps": 4}), registry)
    message = str(caught.value)
    assert "modality/dit" in message
    assert "--stage" not in message
    for owner in ("pretrain", "infer"):
        assert owner in message


REF = Ref("json:loads")


def plugin(*cards, **of):
    """A registry of these cards and of a default adapter, which fine-tuning needs."""
    registry = Registry()
    manifests = {
        "eflm": [AdapterCard(name="full", summary="", source="", factory=REF, trains_base=True, default=True)]
    }
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
    ("cards", "spec", "facts"),
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
            ["moe/choice", "step by step", "leave it out"],
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
            ["infer.prompt_tokens", "modality/dit"],
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
def test_cards_decide_what_is_refused(cards, spec, facts):
    with pytest.raises(UsageError) as caught:
        compose(spec, plugin(*cards))
    assert [fact for fact in facts if fact not in str(caught.value)] == []


def test_a_conflict_with_an_option_refuses_that_value_only():
    clash = Conflict("modality/llm", "it clashes", "take b", options={"positions": "relative"})
    text = evolve(TEXT, config=Ref("eflm_plugins.modalities.options:LlmOptions"))
    cards = plugin(text, card(AttentionCard, "a", conflicts=[clash]))
    assert compose(asked(attention="a"), cards).technique("attention") is not None
    with pytest.raises(UsageError, match=r"attention/a.*llm\.positions=relative.*it clashes.*take b"):
        compose(asked(attention="a", set={"llm.positions": "relative"}), cards)


def test_a_bidirectional_part_of_a_causal_model_refuses_causal_variants():
    model = evolve(
        TEXT,
        config=Ref(f"{__name__}:PartOptions"),
        bidirectional_where={"part": ("all", "eye")},
    )
    cards = plugin(model, card(AttentionCard, "past"), card(AttentionCard, "both", bidirectional=True))
    for chosen in ({}, {"llm.part": "eye"}):
        with pytest.raises(UsageError) as refusal:
            compose(asked(attention="past", set=chosen), cards)
        for fact in ("attention/past", "llm.part", "mouth", "choose both as the attention"):
            assert fact in str(refusal.value)
    assert (
        compose(asked(attention="past", set={"llm.part": "mouth"}), cards).technique("attention") is not None
    )
    assert compose(asked(attention="both"), cards).technique("attention") is not None


def test_the_error_for_a_missing_extra_says_what_to_install():
    needy = card(QuantizerCard, "q", bits=4, requires=("no_such_module",), extra="quant")
    with pytest.raises(PluginError, match=r"pip install 'eflm\[quant\]'"):
        compose(asked(quant="q"), plugin(TEXT, needy))


def test_metrics_take_part_if_they_fit_and_are_installed():
    metrics = [
        card(MetricCard, "fits", metrics=[X]),
        card(MetricCard, "elsewhere", metrics=[X], modalities=("dit",)),
        card(MetricCard, "later", metrics=[X], stages=("finetune",)),
        card(MetricCard, "needy", metrics=[X], requires=("no_such_module",)),
        card(MetricCard, "averse", metrics=[X], conflicts=[Conflict("modality/llm", "why", "what")]),
    ]
    plan = compose(asked(stages=("infer",)), plugin(TEXT, *metrics))
    assert [chosen.card.name for chosen in plan.metrics] == ["fits"]


# --- names that several plugins have -------------------------------------------------------------------------


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
    # pytest's import mode leaves test modules out of sys.modules, and a Ref is resolved by name.
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or _module())


def _module():
    module = types.ModuleType(__name__)
    module.__dict__.update(WidthOptions=WidthOptions, DepthOptions=DepthOptions)
    return module


def test_a_name_of_two_kinds_needs_the_kind():
    registry = plugin(
        TEXT,
        card(AttentionCard, "twin", config=WIDTH),
        card(MetricCard, "twin", metrics=[X], config=DEPTH),
    )
    spec = asked(attention="twin", set={"twin.depth": 3})
    assert compose(spec, registry).metrics[0].options.depth == 3
    with pytest.raises(UsageError, match=r"attention/twin\.width.*metric/twin\.width"):
        compose(asked(attention="twin", set={"twin.width": 9}), registry)
    plan = compose(asked(attention="twin", set={"attention/twin.width": 9}), registry)
    assert (plan.technique("attention").options.width, plan.metrics[0].options.width) == (9, 7)
    assert compose(plan.spec, registry) == plan


def test_another_distributions_plugin_of_the_same_name_can_be_chosen():
    registry = plugin(TEXT, card(AttentionCard, "a", config=WIDTH))
    other = types.ModuleType("other")
    other.eflm_attention = hookimpl(lambda: [card(AttentionCard, "a", config=DEPTH)])
    registry.register(other, distribution="eflm-other")
    with pytest.raises(UsageError, match=r"eflm:a.*eflm-other:a"):
        compose(asked(attention="a"), registry)
    plan = compose(asked(attention="eflm-other:a", set={"a.depth": 2}), registry)
    assert plan.technique("attention").origin.distribution == "eflm-other"
    assert plan.spec.techniques["attention"] == "eflm-other:a"
    assert compose(plan.spec, registry) == plan


def test_the_default_of_another_distribution_is_not_taken():
    registry = plugin(TEXT, card(AdapterCard, "other", default=True), distribution="eflm-other")
    plan = compose(asked(), registry)
    assert plan.technique("adapter").origin.distribution == "eflm"
    assert compose(plan.spec, registry) == plan


def test_an_invalid_preset_is_an_error_of_its_plugin():
    wrong = card(ModalityCard, "llm", presets=(Preset("nano", "", {"a.width": 0, "b.width": 1}),))
    attention = card(AttentionCard, "a", config=WIDTH)
    with pytest.raises(PluginError, match=r"modality/llm.*a\.width.*>= 1"):
        compose(asked(attention="a"), plugin(wrong, attention))
    assert compose(asked(), plugin(wrong, attention)).technique("attention") is None


def test_a_preset_does_not_set_options_of_a_third_party_plugin_of_the_same_name():
    preset = card(ModalityCard, "llm", presets=(Preset("nano", "", {"a.width": 4, "a.depth": 3}),))
    registry = plugin(preset)
    other = types.ModuleType("other")
    other.eflm_attention = hookimpl(lambda: [card(AttentionCard, "a", config=DEPTH)])
    registry.register(other, distribution="eflm-other")
    options = compose(asked(attention="a"), registry).technique("attention").options
    assert (options.width, options.depth) == (7, 1)


@pytest.mark.parametrize(
    ("config", "facts"),
    [("json:nothing", "AttributeError"), ("json:loads", "attrs class")],
)
def test_options_that_cannot_be_imported_are_an_error_of_the_plugin(config, facts):
    with pytest.raises(PluginError, match=f"attention/a.*{config}.*{facts}"):
        compose(asked(attention="a"), plugin(TEXT, card(AttentionCard, "a", config=Ref(config))))


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
