"""Discovery of installed distributions: an error in one plugin does not affect the others."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest

from eflm import hookimpl
from eflm.cli.show import find
from eflm.errors import PluginError, UsageError
from eflm.registry.kinds import kinds
from eflm.registry.registry import Registry, kind_of
from eflm_schemas import AttentionCard, MetricCard, MetricInfo, QuantizerCard, Ref

GOOD = """
import eflm
from eflm_schemas import AttentionCard, Ref

@eflm.hookimpl
def eflm_attention():
    return [AttentionCard(name="{name}", summary="s", source="x", factory=Ref("{module}:make"))]
"""

BROKEN = {
    "eflm-raises": ("1 / 0", ["ZeroDivisionError"]),
    "eflm-exits": ("raise SystemExit(3)", ["SystemExit"]),
    "eflm-syntax": ("def (", ["SyntaxError"]),
    "eflm-missing": ("import no_such_module", ["ModuleNotFoundError", "no_such_module"]),
    "eflm-wrong-type": (
        """
        import eflm
        from eflm_schemas import QuantizerCard, Ref

        @eflm.hookimpl
        def eflm_attention():
            return [QuantizerCard(name="q", summary="s", source="x", factory=Ref("a:b"), bits=4)]
        """,
        ["eflm_attention", "AttentionCard", "QuantizerCard", "'q'"],
    ),
    "eflm-lone-card": (
        """
        import eflm
        from eflm_schemas import AttentionCard, Ref

        @eflm.hookimpl
        def eflm_attention():
            return AttentionCard(name="alone", summary="s", source="x", factory=Ref("a:b"))
        """,
        ["eflm_attention", "iterable", "'alone'"],
    ),
    "eflm-no-return": (
        """
        import eflm

        @eflm.hookimpl
        def eflm_attention():
            []
        """,
        ["eflm_attention", "None"],
    ),
    "eflm-signature": (
        """
        import eflm

        @eflm.hookimpl
        def eflm_attention(geometry):
            return ()
        """,
        ["geometry"],
    ),
    "eflm-hook-raises": (
        """
        import eflm

        @eflm.hookimpl
        def eflm_attention():
            raise KeyError("lost")
        """,
        ["KeyError", "'lost'"],
    ),
    "eflm-misspelt": (
        """
        import eflm

        @eflm.hookimpl
        def eflm_atention():
            return ()
        """,
        ["eflm_atention", "did you mean eflm_attention?"],
    ),
    "eflm-unmarked": (
        """
        def eflm_attention():
            return ()
        """,
        ["eflm_attention", "@eflm.hookimpl"],
    ),
    "eflm-bad-card": (
        """
        import eflm
        from eflm_schemas import AttentionCard, Ref

        @eflm.hookimpl
        def eflm_attention():
            return [AttentionCard(name="No Spaces", summary="s", source="x", factory=Ref("a:b"))]
        """,
        ["ValueError"],
    ),
    "eflm-twice": (
        """
        import eflm
        from eflm_schemas import AttentionCard, Ref

        @eflm.hookimpl
        def eflm_attention():
            return 2 * [AttentionCard(name="twin", summary="s", source="x", factory=Ref("a:b"))]
        """,
        ["eflm-twice", "attention/twin"],
    ),
}


def card(name: str, kind: type = AttentionCard, **fields):
    return kind(name=name, summary="a test", source="a test", factory=Ref("json:loads"), **fields)


def manifest(*cards, hook: str = "eflm_attention"):
    module = types.ModuleType("manifest")
    setattr(module, hook, hookimpl(lambda: cards))
    return module


def test_an_error_in_a_plugin_is_reported_and_affects_no_other(site, discover):
    for distribution, (code, _) in BROKEN.items():
        site.install(distribution, code)
    site.install("eflm-good", GOOD.format(name="kindly", module="eflm_good"), version="2.3")

    found = discover()

    broken = {plugin.distribution: plugin.error for plugin in found.broken}
    assert broken.keys() == BROKEN.keys()
    for distribution, (_, facts) in BROKEN.items():
        assert [fact for fact in facts if fact not in broken[distribution]] == []
        assert "\n" not in broken[distribution]
    [good] = [entry for entry in found.entries() if entry.origin.distribution == "eflm-good"]
    assert (good.card.name, good.origin.version, good.status) == ("kindly", "2.3", "ready")
    assert {"mha", "lora", "fp32", "llm"} <= names(found, "eflm")


def names(registry, distribution=None):
    return {e.card.name for e in registry.entries() if distribution in (None, e.origin.distribution)}


def test_a_name_that_two_distributions_use_needs_the_distribution(site, discover):
    site.install("eflm-one", GOOD.format(name="mha", module="eflm_one"))
    found = discover()

    rivals = [entry for entry in found.entries("attention") if entry.card.name == "mha"]
    assert [entry.origin.distribution for entry in rivals] == ["eflm", "eflm-one"]
    for entry, other in zip(rivals, reversed(rivals), strict=True):
        assert other.origin.distribution in entry.notes[0]
        assert entry.qualified in entry.notes[0]

    with pytest.raises(UsageError) as refusal:
        find(found, "attention/mha")
    for fact in ("eflm:mha", "eflm-one:mha", "eflm-one 1.0"):
        assert fact in str(refusal.value)
    for name, distribution in (("eflm:mha", "eflm"), ("Eflm_One:mha", "eflm-one")):
        assert find(found, f"attention/{name}").origin.distribution == distribution


def test_a_manifest_that_imports_slowly_has_a_note_with_the_reason(site, discover, monkeypatch):
    monkeypatch.setattr("eflm.registry.registry.SLOW_IMPORT_SECONDS", 0.2)
    monkeypatch.setattr("eflm.registry.registry.HEAVY", ("heavy_library",))
    (site.root / "heavy_library.py").write_text("import time; time.sleep(0.3)")
    site.install("eflm-slow", "import time; time.sleep(0.3)\n" + GOOD.format(name="late", module="eflm_slow"))
    site.install("eflm-heavy", "import heavy_library\n" + GOOD.format(name="heavy", module="eflm_heavy"))

    notes = {entry.card.name: entry.notes for entry in discover().entries("attention")}
    assert "0.3 s" in notes["late"][0]
    assert "0.3 s" in notes["heavy"][0]
    assert "heavy_library" in notes["heavy"][0]
    assert notes["mha"] == ()


def test_a_manifest_that_prints_does_not_write_to_standard_output(site, discover, capsys):
    site.install("eflm-loud", "print('hello')\n" + GOOD.format(name="loud", module="eflm_loud"))
    assert "loud" in names(discover())
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "hello\n")


def test_a_signal_during_discovery_is_not_an_error_of_a_plugin(site, discover):
    from eflm.controller.run_options import Terminated

    code = "from eflm.controller.run_options import Terminated\nraise Terminated"
    site.install("eflm-slow", code)
    with pytest.raises(Terminated):
        discover()


def test_damaged_metadata_of_one_distribution_hides_no_other(site, discover):
    site.install("eflm-good", GOOD.format(name="kindly", module="eflm_good"))
    site.install("eflm-damaged", "")
    (site.root / "eflm_damaged-1.0.dist-info" / "entry_points.txt").write_bytes(
        b"[eflm]\nplugin = \xff\xfe\n"
    )
    found = discover()
    assert "kindly" in names(found)
    assert any("eflm_damaged" in plugin.distribution for plugin in found.broken)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("", set()), ("eflm-one", {"one"}), ("Eflm_Two, ", {"two"}), ("first,eflm-two", {"one", "two"})],
)
def test_eflm_plugins_selects_third_party_plugins(site, discover, monkeypatch, value, expected):
    site.install("eflm-one", GOOD.format(name="one", module="eflm_one"), entry="first")
    site.install("eflm-two", GOOD.format(name="two", module="eflm_two"), entry="second")
    monkeypatch.setenv("EFLM_PLUGINS", value)
    found = discover()
    assert names(found) - names(found, "eflm") == expected
    assert {"mha", "nsa"} <= names(found, "eflm")
    assert found.notes == ()


def test_an_unknown_name_in_eflm_plugins_has_a_note(discover, monkeypatch):
    monkeypatch.setenv("EFLM_PLUGINS", "eflm-absent")
    [note] = discover().notes
    assert "eflm-absent" in note


def test_the_built_in_plugins_are_complete(registry):
    assert registry.broken == ()
    found = {row.name: {card.name for card in registry.cards(row.name)} for row in kinds()}
    assert found["attention"] >= {"mha", "gqa", "mqa", "mla", "nsa", "mamba2", "rwkv7"}
    assert found["moe"] >= {"topk", "none"}
    assert found["adapter"] >= {"lora", "rslora", "dora", "full", "freeze"}
    assert found["quantizer"] >= {"fp32", "bf16", "fp16", "int4"}
    assert "llm" in found["modality"]
    assert found["metric"]
    assert found["power"] >= {"nvml", "rapl"}
    assert found["command"] >= {"compare", "report", "doctor"}
    assert {entry.status for entry in registry.entries()} <= {"ready", "needs"}
    for entry in registry.entries():
        assert entry.card.factory.target.startswith(("eflm_plugins.", "eflm_vision.", "eflm_analysis."))
        assert entry.origin.distribution == "eflm"


def test_discovery_and_composing_import_nothing_heavy(heavy):
    code = f"""
import sys
from eflm import load_plugins
from eflm.planning.compose import compose
from eflm.planning.keys import chain
from eflm_schemas import RunSpec
techniques = {{"attention": "nsa", "moe": "topk", "peft": "dora"}}
chain(compose(RunSpec(device="cpu", techniques=techniques), load_plugins()))
print([name for name in {heavy!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- lookup -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name", "facts"),
    [
        ("attention", "nsaa", ["'nsaa'", "did you mean nsa?", "mha"]),
        ("peft", "lora2", ["adapter", "did you mean lora?", "freeze"]),
        ("attentoin", "nsa", ["did you mean attention?"]),
        ("attention", "elsewhere:nsa", ["'elsewhere:nsa'"]),
    ],
)
def test_the_error_for_an_unknown_plugin_suggests_names(registry, kind, name, facts):
    with pytest.raises(UsageError) as caught:
        registry.get(kind, name)
    assert [fact for fact in facts if fact not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("peft", "adapter"),
        ("quant", "quantizer"),
        ("router", "moe"),
        ("moe_router", "moe"),
        ("modality_loader", "modality"),
        ("metric_collector", "metric"),
        ("power_source", "power"),
        *((row.name, row.name) for row in kinds()),
    ],
)
def test_a_kind_has_aliases(word, kind):
    assert kind_of(word) == kind


def test_the_error_for_a_missing_package_says_what_to_install():
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
    with pytest.raises(PluginError, match=r"pip install 'eflm-x\[fast\]'"):
        registry.get("quant", "extra")
    with pytest.raises(PluginError, match="no_such_module"):
        registry.get("quant", "bare")


def test_a_card_whose_module_does_not_exist_is_broken_alone():
    registry = Registry()
    lost = AttentionCard(name="lost", summary="s", source="x", factory=Ref("json.nowhere:f"))
    registry.register(manifest(lost, card("found")))
    assert [entry.status for entry in registry.entries("attention")] == ["broken", "ready"]
    with pytest.raises(PluginError, match=r"json\.nowhere"):
        registry.get("attention", "lost")


def test_an_invalid_manifest_leaves_the_registry_unchanged():
    registry = Registry()
    metric = MetricInfo(name="X", unit="s", better="lower", definition="d")
    registry.register(manifest(card("x", MetricCard, metrics=[metric]), hook="eflm_metric_collector"))
    with pytest.raises(PluginError):
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


def test_discovery_can_be_repeated(registry, discover):
    assert {entry.card.address for entry in registry.entries()} <= {
        e.card.address for e in discover().entries()
    }
