"""A change of the question changes the keys of the stages that depend on it, and of no others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata

import pytest
from attrs import evolve

from eflm.planning import keys
from eflm.planning.compose import compose
from eflm.planning.keys import chain, without_quantizer
from eflm_schemas import RunSpec

BASE = RunSpec(
    techniques={"attention": "nsa", "quant": "bf16", "peft": "lora"}, device="cpu", threads=1, seed=3
)
STEPS = ("pretrain", "quantize", "finetune", "infer")
AFTER_PRETRAIN, AFTER_QUANTIZE, NONE = STEPS[1:], STEPS[2:], ()


def changed_steps(one, other, hashed="key"):
    """The names of the steps whose hashes differ between two chains of the same steps."""
    pairs = list(zip(one.links, other.links, strict=True))
    assert all(a.name == b.name for a, b in pairs)
    return tuple(a.name for a, b in pairs if getattr(a, hashed) != getattr(b, hashed))


def with_settings(**settings):
    return evolve(BASE, settings={name.replace("__", "."): value for name, value in settings.items()})


def with_techniques(**techniques):
    return evolve(BASE, techniques={**BASE.techniques, **techniques})


@pytest.fixture
def base(registry):
    return compose(BASE, registry)


def test_a_chain_has_the_stages_and_the_step_that_quantizes(base, registry):
    links = chain(base).links
    assert tuple(link.name for link in links) == STEPS
    assert [link.name for link in links if link.is_stage] == ["pretrain", "finetune", "infer"]
    assert len({link.key for link in links} | {link.checkpoint for link in links}) == 8
    assert chain(base).key == links[-1].key
    assert chain(base).before("finetune") == links[:2]
    full_precision = evolve(BASE, techniques={"attention": "nsa", "peft": "lora"})
    assert [link.name for link in chain(compose(full_precision, registry)).links] == list(base.stages)


@pytest.mark.parametrize(
    ("spec", "changed"),
    [
        (with_settings(pretrain__learning_rate=1e-3), STEPS),
        (with_settings(nsa__window=16), STEPS),
        (with_settings(llm__eval_tokens=512), STEPS),
        (with_settings(lora__r=2), AFTER_QUANTIZE),
        (with_settings(finetune__steps=3), AFTER_QUANTIZE),
        (with_settings(infer__merge=False), ("infer",)),
        (with_techniques(attention="gqa"), STEPS),
        (with_techniques(quant="fp32"), AFTER_PRETRAIN),
        (with_techniques(peft="dora"), AFTER_QUANTIZE),
        (evolve(BASE, seed=4), STEPS),
        (evolve(BASE, threads=2), STEPS),
        (evolve(BASE, processes=2), STEPS),
    ],
    ids=str,
)
def test_what_decides_the_weights_changes_this_and_all_later_steps(
    base, registry, monkeypatch, spec, changed
):
    monkeypatch.setattr("eflm.planning.compose.usable_cores", lambda: 2)
    other = chain(compose(spec, registry))
    assert changed_steps(chain(base), other) == changed
    assert changed_steps(chain(base), other, "checkpoint") == changed


@pytest.mark.parametrize(
    ("spec", "changed"),
    [
        (with_settings(infer__requests=3), ("infer",)),
        (evolve(BASE, target_ci=0.01), ("infer",)),
        (evolve(BASE, power_model="estimate"), STEPS),
        (evolve(BASE, isolation="none"), STEPS),
        (evolve(BASE, timeout=60), NONE),
        (evolve(BASE, keep_timings=True), NONE),
    ],
    ids=str,
)
def test_what_decides_the_measurement_keeps_the_checkpoints(base, registry, spec, changed):
    other = chain(compose(spec, registry))
    assert changed_steps(chain(base), other) == changed
    assert changed_steps(chain(base), other, "checkpoint") == NONE


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("modality", STEPS),
        ("attention", STEPS),
        ("quantizer", AFTER_PRETRAIN),
        ("adapter", AFTER_QUANTIZE),
        ("metric", NONE),
    ],
)
def test_the_version_of_a_plugin_is_part_of_the_keys_from_its_first_step(base, kind, changed):
    def updated(chosen):
        newer = evolve(chosen, origin=evolve(chosen.origin, version="99"))
        return newer if chosen.card.kind == kind else chosen

    other = evolve(
        base,
        modality=updated(base.modality),
        techniques=tuple(map(updated, base.techniques)),
        metrics=tuple(map(updated, base.metrics)),
    )
    assert changed_steps(chain(base), chain(other)) == changed


@pytest.mark.parametrize(
    ("library", "changed"),
    [("torch", STEPS), ("transformers", STEPS), ("peft", AFTER_QUANTIZE), ("diffusers", NONE)],
)
def test_the_version_of_a_library_is_part_of_the_keys_of_steps_that_need_it(
    base, monkeypatch, library, changed
):
    before = chain(base)
    installed = metadata.version
    monkeypatch.setattr(keys.metadata, "version", lambda name: "99" if name == library else installed(name))
    assert changed_steps(before, chain(base)) == changed


def test_a_value_that_is_the_default_changes_nothing(base, registry):
    window = base.technique("attention").options.window
    assert chain(compose(with_settings(nsa__window=str(window)), registry)) == chain(base)
    default = RunSpec(device="cpu", threads=1)
    assert chain(compose(evolve(default, techniques={"peft": "full"}), registry)) == chain(
        compose(default, registry)
    )
    # The plan's own spec, as a result keeps it, is the same question.
    stored = evolve(base.spec, settings=json.loads(json.dumps(base.spec.settings)))
    assert chain(compose(stored, registry)) == chain(base)


def test_pretraining_has_one_key_with_and_without_later_stages(registry):
    def pretraining(**fields):
        return chain(compose(evolve(BASE, **fields), registry)).links[0]

    attention_only = {"attention": "nsa"}
    assert pretraining() == pretraining(techniques=attention_only, stages=("pretrain",))
    assert pretraining() == pretraining(techniques=attention_only, stages=("pretrain", "infer"))


def test_the_reference_of_a_compression_is_the_chain_without_the_quantizer(base, registry):
    plain = compose(evolve(BASE, techniques={"attention": "nsa", "peft": "lora"}), registry)
    assert chain(without_quantizer(base)) == chain(plain)
    assert without_quantizer(base).spec.techniques == plain.spec.techniques


def test_another_process_gives_the_same_keys(base, tmp_path):
    code = """
import sys
from eflm import load_plugins
from eflm.planning.compose import compose
from eflm.planning.keys import chain
from eflm_schemas import RunSpec
from eflm_schemas.convert import from_dict
import json
links = chain(compose(from_dict(json.loads(sys.argv[1]), RunSpec), load_plugins())).links
print(json.dumps([[link.name, link.key, link.checkpoint] for link in links]))
"""
    from eflm_schemas.convert import to_json

    done = subprocess.run(
        [sys.executable, "-c", code, to_json(BASE)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "EFLM_PLUGINS": ""},
    )
    assert json.loads(done.stdout) == [[link.name, link.key, link.checkpoint] for link in chain(base).links]
