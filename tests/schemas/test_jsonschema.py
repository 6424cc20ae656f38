"""The JSON Schema files are up to date, accept the documents that eflm writes, and reject invalid ones."""

from __future__ import annotations

import copy
import json

import attrs
import pytest
from jsonschema import Draft202012Validator

from eflm_schemas import STAGES, Metric, PluginOrigin, RunResult, RunSpec, StageResult
from eflm_schemas.convert import to_dict
from eflm_schemas.jsonschema import CARD_SCHEMA, FOLDER, SCHEMAS, text_of
from eflm_schemas.options import describe


def validator(name: str) -> Draft202012Validator:
    schema = json.loads((FOLDER / f"{name}.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def plain(document):
    """Convert tuples to lists, as in a file."""
    return json.loads(json.dumps(document))


@pytest.fixture
def document(environment):
    metric = Metric(
        value=0.5, unit="s", provenance="clock", n=3, sd=0.1, ci95=(0.4, 0.6), percentiles={"p50": 0.5}
    )
    result = RunResult(
        key="abc",
        status="ok",
        started="2025-01-01T00:00:00+00:00",
        seconds=1.5,
        spec=RunSpec(techniques={"attention": "nsa"}, stages=STAGES, settings={"nsa.window": 64}),
        options={"nsa": {"window": 64}},
        plugins=(PluginOrigin(plugin="attention/nsa", distribution="eflm", version="1"),),
        environment=environment,
        facts={"parameters": 7},
        stages={
            "infer": StageResult(
                metrics={"AL": metric, "AEC": Metric.unavailable("W", "no counter")}, seconds=1.0
            )
        },
    )
    return plain(to_dict(result))


def changed(document, path, value):
    """Return a copy of `document` with `value` at `path`; `...` removes the key."""
    copied = copy.deepcopy(document)
    parent = copied
    for key in path[:-1]:
        parent = parent[key]
    if value is ...:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return copied


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_schema_file_is_up_to_date(name):
    assert (FOLDER / name).read_text(encoding="utf-8") == text_of(name), (
        f"{name} is out of date: run `python -m eflm_schemas.jsonschema`"
    )


def test_a_result_is_valid(document):
    validator("result").validate(document)
    failed = {**document, "status": "failed", "reason": "killed", "stages": {}}
    validator("result").validate(failed)


AL, AEC = ("stages", "infer", "metrics", "AL"), ("stages", "infer", "metrics", "AEC")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((*AL, "value"), None),
        ((*AL, "value"), "0.5"),
        ((*AL, "provenance"), "guessed"),
        ((*AL, "provenance"), "unavailable"),
        ((*AL, "unit"), ...),
        ((*AL, "ci95"), [0.4]),
        ((*AL, "extra"), 1),
        ((*AEC, "value"), 0),
        ((*AEC, "reason"), None),
        ((*AEC, "reason"), ""),
        (("schema",), "eflm.result/1"),
        (("status",), "failed"),
        (("status",), "running"),
        (("key",), ...),
        (("facts",), ...),
        (("spec", "stages"), ["train"]),
        (("spec", "stages"), ["infer", "infer"]),
        (("spec", "seed"), -1),
        (("spec", "timeout"), 0),
        (("stages", "train"), {"metrics": {}, "seconds": 1}),
        (("environment", "memory_bytes"), 1.5),
        (("plugins", 0, "version"), ...),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else repr(value),
)
def test_an_invalid_result_is_rejected(document, path, value):
    assert not validator("result").is_valid(changed(document, path, value))


def test_a_partial_spec_is_valid():
    spec = validator("spec")
    spec.validate({})
    spec.validate({"techniques": {"peft": "dora"}, "settings": {"dora.r": 16}, "timeout": None})
    spec.validate(plain(to_dict(RunSpec())))
    assert not spec.is_valid({"technique": {}})
    assert not spec.is_valid({"techniques": {"peft": None}})
    # The names before a field was renamed.
    for old in ("precision", "raw", "region", "energy"):
        assert not spec.is_valid({old: None})


def test_every_built_in_card_is_valid(registry):
    cards = validator("cards")
    for entry in registry.entries():
        config = entry.card.config.resolve() if entry.card.config else None
        document = {
            "schema": CARD_SCHEMA,
            "kind": entry.card.kind,
            "card": to_dict(entry.card),
            "options": [attrs.asdict(info) for info in (describe(config) if config else ())],
            "distribution": entry.origin.distribution,
            "version": entry.origin.version,
            "status": entry.status,
            "detail": entry.detail,
            "notes": list(entry.notes),
        }
        cards.validate(plain(document))
        assert not cards.is_valid({**plain(document), "kind": "other"})
        other = "moe" if entry.card.kind != "moe" else "metric"
        assert not cards.is_valid({**plain(document), "kind": other})
