"""`eflm list-plugins` in a process of its own, also where nothing heavy is installed or importable."""

from __future__ import annotations

import json

import pytest

from eflm.cli.list_plugins import HEADINGS
from eflm_schemas import KINDS


def test_every_kind_has_a_heading():
    assert list(HEADINGS) == list(KINDS)


def test_the_list_is_grouped_by_kind_and_says_where_each_comes_from(eflm):
    text = eflm("list-plugins").stdout
    places = [text.index(heading) for heading in HEADINGS.values()]
    assert places == sorted(places)
    row = next(line for line in text.splitlines() if line.startswith("nsa "))
    assert "eflm 0.1.0" in row
    assert row.rstrip().endswith("ready")
    assert "Broken plugins" not in text


def test_one_kind_alone_under_any_of_its_names(eflm):
    for word in ("adapter", "peft"):
        found = json.loads(eflm("list-plugins", "--kind", word, "--json").stdout)
        assert {plugin["kind"] for plugin in found["plugins"]} == {"adapter"}
    assert "Attention" not in eflm("list-plugins", "--kind", "peft").stdout


def test_a_broken_plugin_has_its_own_section_with_its_error(eflm, site):
    site.install("eflm-raises", "1 / 0", version="0.3")
    text = eflm("list-plugins").stdout
    section = text[text.index("Broken plugins") :]
    assert "eflm-raises 0.3" in section
    assert "ZeroDivisionError: division by zero" in section


@pytest.mark.parametrize("arguments", [("list-plugins",), ("show", "nsa"), ("show", "llm"), ("show", "int4")])
def test_nothing_heavy_is_imported(eflm, site, heavy, arguments):
    site.poison(*heavy)
    for extra in ((), ("--json",)):
        done = eflm(*arguments, *extra)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert done.stdout


def test_where_torch_is_absent_the_list_says_what_needs_it(eflm, site, heavy):
    site.hide(*heavy)
    found = json.loads(eflm("list-plugins", "--json").stdout)
    status = {f"{plugin['kind']}/{plugin['name']}": plugin for plugin in found["plugins"]}
    assert status["quantizer/int4"]["status"] == "needs"
    assert status["quantizer/int4"]["detail"] == "needs extra quant: pip install 'eflm[quant]'"
    assert status["modality/llm"]["status"] == "needs"
    assert "torch" in status["modality/llm"]["detail"]
    assert found["broken"] == []
