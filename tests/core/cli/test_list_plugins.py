"""`eflm list-plugins`: what is installed, and what is needed where something is missing."""

from __future__ import annotations

import json

from eflm.registry.kinds import kinds


def test_the_list_is_grouped_by_kind_and_has_origin_and_status(cli):
    text = cli("list-plugins").stdout
    places = [text.index(row.title) for row in kinds()]
    assert places == sorted(places)
    row = next(line for line in text.splitlines() if line.startswith("nsa "))
    assert "eflm 0.1.0" in row
    assert row.rstrip().endswith("ready")
    assert "Broken plugins" not in text


def test_one_kind_by_its_name_or_alias(cli):
    for word in ("adapter", "peft"):
        found = json.loads(cli("list-plugins", "--kind", word, "--json").stdout)
        assert {plugin["kind"] for plugin in found["plugins"]} == {"adapter"}
    assert "Attention" not in cli("list-plugins", "--kind", "peft").stdout


def test_the_document_has_every_plugin(cli, registry):
    found = json.loads(cli("list-plugins", "--json", env={"EFLM_PLUGINS": ""}).stdout)
    listed = [(plugin["kind"], plugin["name"], plugin["status"]) for plugin in found["plugins"]]
    assert listed == [(e.card.kind, e.card.name, e.status) for e in registry.entries()]
    assert found["broken"] == found["notes"] == []


def test_a_broken_plugin_is_listed_with_its_error(cli, site):
    site.install("eflm-raises", "1 / 0", version="0.3")
    text = cli("list-plugins").stdout
    section = text[text.index("Broken plugins") :]
    assert "eflm-raises 0.3" in section
    assert "ZeroDivisionError" in section
    [broken] = json.loads(cli("list-plugins", "--json").stdout)["broken"]
    assert (broken["distribution"], broken["version"]) == ("eflm-raises", "0.3")


def test_a_plugin_that_prints_does_not_corrupt_the_document(cli, site):
    site.install("eflm-loud", "print('hello')\n\ndef plugin(): ...")
    done = cli("list-plugins", "--json")
    assert json.loads(done.stdout)["schema"] == "eflm.plugins/1"
    assert "hello" in done.stderr


def test_without_torch_the_list_says_what_to_install(eflm, site, heavy):
    site.hide(*heavy)
    found = json.loads(eflm("list-plugins", "--json").stdout)
    status = {f"{plugin['kind']}/{plugin['name']}": plugin for plugin in found["plugins"]}
    assert status["quantizer/int4"]["status"] == "needs"
    assert "pip install 'eflm[quant]'" in status["quantizer/int4"]["detail"]
    assert status["modality/llm"]["status"] == "needs"
    assert status["command/compare"]["status"] in ("ready", "needs")
    assert found["broken"] == []
