"""Discovery with real distributions on the path: what one plugin does wrong stays with that plugin."""

from __future__ import annotations

import json
import sys
import types

import pytest

from eflm import hookimpl, load_plugins
from eflm.errors import PluginError, UsageError
from eflm.registry.registry import Registry, kind_of
from eflm_schemas import KINDS, AttentionCard, MetricCard, MetricInfo, QuantizerCard, Ref

GOOD = """
import eflm
from eflm_schemas import AttentionCard, Ref

@eflm.hookimpl
def eflm_attention():
    return [AttentionCard(name="{name}", summary="s", source="x", factory=Ref("{module}:make"))]
"""

BROKEN = {
    "eflm-raises": ("1 / 0", "ZeroDivisionError: division by zero"),
    "eflm-exits": ("raise SystemExit(3)", "exits the program"),
    "eflm-syntax": ("def (", "SyntaxError"),
    "eflm-missing": ("import no_such_module", "No module named 'no_such_module'"),
    "eflm-wrong-type": (
        """
        import eflm
        from eflm_schemas import QuantizerCard, Ref

        @eflm.hookimpl
        def eflm_attention():
            return [QuantizerCard(name="q", summary="s", source="x", factory=Ref("a:b"), bits=4)]
        """,
        "eflm_attention must return an iterable of AttentionCard; it returned the QuantizerCard 'q'",
    ),
    "eflm-lone-card": (
        """
        import eflm
        from eflm_schemas import AttentionCard, Ref

        @eflm.hookimpl
        def eflm_attention():
            return AttentionCard(name="alone", summary="s", source="x", factory=Ref("a:b"))
        """,
        "eflm_attention must return an iterable of AttentionCard, not the AttentionCard 'alone'",
    ),
    "eflm-no-return": (
        """
        import eflm

        @eflm.hookimpl
        def eflm_attention():
            []
        """,
        "eflm_attention must return an iterable of AttentionCard, not None",
    ),
    "eflm-signature": (
        """
        import eflm

        @eflm.hookimpl
        def eflm_attention(geometry):
            return ()
        """,
        "geometry",
    ),
    "eflm-hook-raises": (
        """
        import eflm

        @eflm.hookimpl
        def eflm_attention():
            raise KeyError("lost")
        """,
        "KeyError: 'lost'",
    ),
    "eflm-misspelt": (
        """
        import eflm

        @eflm.hookimpl
        def eflm_atention():
            return ()
        """,
        "there is no hook called eflm_atention; did you mean eflm_attention?",
    ),
    "eflm-unmarked": (
        """
        def eflm_attention():
            return ()
        """,
        "mark functions named",
    ),
    "eflm-bad-card": (
        """
        import eflm
        from eflm_schemas import AttentionCard, Ref

        @eflm.hookimpl
        def eflm_attention():
            return [AttentionCard(name="No Spaces", summary="s", source="x", factory=Ref("a:b"))]
        """,
        "ValueError",
    ),
    "eflm-twice": (
        """
        import eflm
        from eflm_schemas import AttentionCard, Ref

        @eflm.hookimpl
        def eflm_attention():
            return 2 * [AttentionCard(name="twin", summary="s", source="x", factory=Ref("a:b"))]
        """,
        "eflm-twice offers attention/twin twice",
    ),
}


def card(name: str, kind: type = AttentionCard, **fields):
    return kind(name=name, summary="a test", source="a test", factory=Ref("json:loads"), **fields)


def manifest(*cards, hook: str = "eflm_attention"):
    module = types.ModuleType("manifest")
    setattr(module, hook, hookimpl(lambda: cards))
    return module


@pytest.fixture
def listed(eflm):
    def run(**env: str):
        done = eflm("list-plugins", "--json", env=env)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_every_way_to_break_a_plugin_is_reported_and_harms_no_other(site, listed):
    for distribution, (code, _) in BROKEN.items():
        site.install(distribution, code)
    site.install("eflm-good", GOOD.format(name="kindly", module="eflm_good"), version="2.3")

    found = listed()

    broken = {plugin["distribution"]: plugin["error"] for plugin in found["broken"]}
    assert broken.keys() == BROKEN.keys()
    for distribution, (_, words) in BROKEN.items():
        assert words in broken[distribution]
        assert "\n" not in broken[distribution]
    good = [plugin for plugin in found["plugins"] if plugin["distribution"] != "eflm"]
    assert [(p["name"], p["distribution"], p["version"], p["status"]) for p in good] == [
        ("kindly", "eflm-good", "2.3", "ready")
    ]
    assert {"mha", "lora", "fp32", "llm"} <= {
        p["name"] for p in found["plugins"] if p["distribution"] == "eflm"
    }


def test_two_distributions_with_one_name_are_both_listed_and_told_apart(site, listed, eflm):
    site.install("eflm-one", GOOD.format(name="mha", module="eflm_one"))

    rivals = [p for p in listed()["plugins"] if (p["kind"], p["name"]) == ("attention", "mha")]
    assert [p["distribution"] for p in rivals] == ["eflm", "eflm-one"]
    assert "also offered by eflm-one: choose this one as 'eflm:mha'" in rivals[0]["notes"][0]

    plain = eflm("show", "attention/mha")
    assert plain.returncode == 2
    assert "eflm 0" in plain.stderr
    assert "eflm-one 1.0" in plain.stderr
    for name, distribution in (("eflm:mha", "eflm"), ("Eflm_One:mha", "eflm-one")):
        shown = eflm("show", f"attention/{name}", "--json")
        assert json.loads(shown.stdout)["distribution"] == distribution


def test_a_slow_manifest_is_noted_with_what_makes_it_slow(site, listed):
    site.install("eflm-slow", "import time; time.sleep(0.6)\n" + GOOD.format(name="late", module="eflm_slow"))
    (site.root / "torch.py").write_text("import time; time.sleep(0.6)")
    site.install("eflm-torch", "import torch\n" + GOOD.format(name="heavy", module="eflm_torch"))

    notes = {p["name"]: p["notes"] for p in listed()["plugins"]}
    assert notes["late"] == ["took 0.6 s to import"]
    assert notes["heavy"] == [
        "took 0.6 s to import: it imports torch, which only its implementation should do"
    ]
    assert notes["mha"] == []


def test_a_manifest_that_prints_does_not_spoil_the_document(site, listed):
    site.install("eflm-loud", "print('hello')\n" + GOOD.format(name="loud", module="eflm_loud"))
    assert "loud" in {p["name"] for p in listed()["plugins"]}


def test_damaged_metadata_of_one_distribution_hides_no_other(site, listed):
    site.install("eflm-good", GOOD.format(name="kindly", module="eflm_good"))
    site.install("eflm-damaged", "")
    (site.root / "eflm_damaged-1.0.dist-info" / "entry_points.txt").write_bytes(
        b"[eflm]\nplugin = \xff\xfe\n"
    )
    found = listed()
    assert "kindly" in {p["name"] for p in found["plugins"]}
    assert any("eflm_damaged" in plugin["distribution"] for plugin in found["broken"])


@pytest.mark.parametrize(
    ("value", "names"),
    [("", set()), ("eflm-one", {"one"}), ("Eflm_Two, ", {"two"}), ("first,eflm-two", {"one", "two"})],
)
def test_eflm_plugins_narrows_what_is_not_built_in(site, listed, value, names):
    site.install("eflm-one", GOOD.format(name="one", module="eflm_one"), entry="first")
    site.install("eflm-two", GOOD.format(name="two", module="eflm_two"), entry="second")
    found = listed(EFLM_PLUGINS=value)
    assert {p["name"] for p in found["plugins"] if p["distribution"] != "eflm"} == names
    assert {"mha", "nsa"} <= {p["name"] for p in found["plugins"]}
    assert found["notes"] == []


def test_a_name_in_eflm_plugins_that_nothing_has_is_said(listed):
    assert "eflm-absent" in listed(EFLM_PLUGINS="eflm-absent")["notes"][0]


def test_the_built_ins_come_through_the_entry_point_and_are_whole(registry):
    assert registry.broken == ()
    names = {kind: [card.name for card in registry.cards(kind)] for kind in KINDS}
    assert set(names["attention"]) >= {"mha", "gqa", "mqa", "mla", "nsa", "mamba2", "rwkv7"}
    assert set(names["moe"]) >= {"topk", "none"}
    assert set(names["adapter"]) >= {"lora", "rslora", "dora", "full", "freeze"}
    assert set(names["quantizer"]) >= {"fp32", "bf16", "fp16", "int4"}
    assert "llm" in names["modality"]
    assert names["metric"]
    assert {entry.status for entry in registry.entries()} <= {"ready", "needs"}
    for entry in registry.entries():
        assert entry.card.factory.target.startswith(("eflm_plugins.", "eflm_vision."))
        assert entry.origin.distribution == "eflm"


def test_listing_imports_nothing_heavy_even_into_a_running_program(heavy):
    import subprocess

    code = f"import eflm, sys; eflm.load_plugins(); print([n for n in {heavy!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- lookup -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("attention", "nsaa", ["'nsaa'", "did you mean nsa?", "mha"]),
        ("peft", "lora2", ["adapter", "did you mean lora?", "freeze"]),
        ("attentoin", "nsa", ["did you mean attention?"]),
        ("attention", "elsewhere:nsa", ["'elsewhere:nsa'"]),
    ],
)
def test_an_unknown_plugin_is_answered_with_the_near_and_the_known(registry, kind, name, words):
    with pytest.raises(UsageError) as caught:
        registry.get(kind, name)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("peft", "adapter"),
        ("quant", "quantizer"),
        ("router", "moe"),
        ("moe_router", "moe"),
        ("modality_loader", "modality"),
        ("metric_collector", "metric"),
        *((kind, kind) for kind in KINDS),
    ],
)
def test_a_kind_answers_to_its_other_names(word, kind):
    assert kind_of(word) == kind


def test_what_a_plugin_lacks_is_said_with_the_way_to_get_it():
    registry = Registry()
    registry.register(
        manifest(
            card("extra", QuantizerCard, bits=4, requires=("json", "no_such_module"), extra="fast"),
            card("bare", QuantizerCard, bits=4, requires=("no_such_module",)),
            hook="eflm_quantizer",
        ),
        distribution="eflm-x",
    )
    assert registry.find("quant", "extra").status == "needs"
    with pytest.raises(PluginError, match=r"needs extra fast: pip install 'eflm-x\[fast\]'"):
        registry.get("quant", "extra")
    with pytest.raises(PluginError, match="needs no_such_module, which is not installed"):
        registry.get("quant", "bare")


def test_a_card_whose_module_does_not_exist_is_broken_and_its_neighbours_are_not():
    registry = Registry()
    lost = AttentionCard(name="lost", summary="s", source="x", factory=Ref("json.nowhere:f"))
    registry.register(manifest(lost, card("found")))
    assert [entry.status for entry in registry.entries("attention")] == ["broken", "ready"]
    with pytest.raises(PluginError, match=r"names json\.nowhere, and there is no such module"):
        registry.get("attention", "lost")


def test_a_manifest_in_this_process_can_be_registered_and_a_bad_one_leaves_no_trace():
    registry = Registry()
    metric = MetricInfo(name="X", unit="s", better="lower", definition="d")
    registry.register(manifest(card("x", MetricCard, metrics=[metric]), hook="eflm_metric_collector"))
    with pytest.raises(PluginError, match="must return an iterable of AttentionCard"):
        registry.register(manifest(card("y"), "z"), name="bad")
    assert [entry.card.address for entry in registry.entries()] == ["metric/x"]
    registry.register(manifest(card("y")), name="bad")
    assert registry.get("attention", "y").origin.distribution == "in-process"


def test_a_reference_is_the_shortest_name_that_finds_the_entry():
    registry = Registry()
    registry.register(manifest(card("a"), card("b")), distribution="one")
    registry.register(manifest(card("b")), distribution="two")
    references = [registry.reference(entry) for entry in registry.entries("attention")]
    assert references == ["a", "one:b", "two:b"]
    assert [registry.get("attention", r).qualified for r in references] == ["one:a", "one:b", "two:b"]


def test_load_plugins_may_be_called_again(registry):
    again = load_plugins()
    assert {entry.card.address for entry in registry.entries()} <= {e.card.address for e in again.entries()}
