"""JSON Schemas (draft 2020-12) of the documents that eflm reads and writes, for tools in other languages.

msgspec derives them from the classes; this module adds the rules that types cannot express.
`python -m eflm_schemas.jsonschema` writes the files in `json/`, and a test checks that they are up to date.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eflm_schemas.cards import Ref, card_classes
from eflm_schemas.comparison import (
    COMPARISON_SCHEMA,
    REPEATS_SCHEMA,
    SWEEP_SCHEMA,
    Comparison,
    Repeats,
    Sweep,
)
from eflm_schemas.options import OptionInfo
from eflm_schemas.result import SCHEMA, Metric, RunResult
from eflm_schemas.spec import ISOLATIONS, STAGES, RunSpec

DRAFT = "https://json-schema.org/draft/2020-12/schema"
FOLDER = Path(__file__).parent / "json"
CARD_SCHEMA = "eflm.card/1"

_TEXT = {"type": "string", "minLength": 1}

#: Rules of single fields.
_FIELD_RULES: dict[type, dict[str, dict[str, Any]]] = {
    RunResult: {"schema": {"const": SCHEMA}, "stages": {"propertyNames": {"enum": list(STAGES)}}},
    Repeats: {"schema": {"const": REPEATS_SCHEMA}},
    Sweep: {"schema": {"const": SWEEP_SCHEMA}},
    Comparison: {"schema": {"const": COMPARISON_SCHEMA}, "sides": {"minItems": 2}},
    RunSpec: {
        "stages": {"items": {"enum": list(STAGES)}, "uniqueItems": True},
        "seed": {"minimum": 0},
        "processes": {"minimum": 1},
        "isolation": {"enum": list(ISOLATIONS)},
        "target_ci": {"exclusiveMinimum": 0, "maximum": 1},
        "threads": {"minimum": 1},
        "timeout": {"exclusiveMinimum": 0},
    },
    Ref: {"target": {"pattern": r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$"}},
}
#: Rules between the fields of a class.
_CLASS_RULES: dict[type, dict[str, Any]] = {
    Metric: {
        "if": {"properties": {"provenance": {"const": "unavailable"}}},
        "then": {"properties": {"value": {"type": "null"}, "reason": _TEXT}},
        "else": {"properties": {"value": {"type": "number"}}},
    },
    RunResult: {
        "if": {"properties": {"status": {"const": "failed"}}},
        "then": {"properties": {"reason": _TEXT}},
        "else": {"properties": {"reason": {"type": "null"}}},
    },
}


def result_schema() -> dict[str, Any]:
    """Schema of a result file and of `eflm bench --json`."""
    return _document("eflm result", RunResult)


def repeats_schema() -> dict[str, Any]:
    """Schema of `eflm bench --repeat N --json`."""
    return _document("eflm repeats", Repeats)


def sweep_schema() -> dict[str, Any]:
    """Schema of `eflm bench --set OWNER.OPTION=1,2,3 --json`."""
    return _document("eflm sweep", Sweep)


def comparison_schema() -> dict[str, Any]:
    """Schema of `eflm compare --json`."""
    return _document("eflm comparison", Comparison)


def spec_schema() -> dict[str, Any]:
    """Schema of a run spec that a user writes: fields with a default are optional."""
    return _document("eflm run spec", RunSpec, complete=False)


def cards_schema() -> dict[str, Any]:
    """Schema of `eflm show --json`: a card of any kind with its options and the distribution it comes from."""
    text = {"type": "string"}
    common = {
        "schema": {"const": CARD_SCHEMA},
        "options": {"type": "array", "items": {"$ref": "#/$defs/OptionInfo"}},
        "distribution": text,
        "version": text,
        "status": {"enum": ["ready", "needs", "broken"]},
        "detail": text,
        "notes": {"type": "array", "items": text},
    }
    kinds = [
        {"properties": {"kind": {"const": kind}, "card": {"$ref": f"#/$defs/{card.__name__}"}}}
        for kind, card in card_classes().items()
    ]
    return {
        "$schema": DRAFT,
        "title": "eflm card",
        "type": "object",
        "properties": {**common, "kind": {"enum": list(card_classes())}, "card": {"type": "object"}},
        "required": [*common, "kind", "card"],
        "additionalProperties": False,
        "oneOf": kinds,
        "$defs": _definitions(OptionInfo, *card_classes().values()),
    }


#: File name -> the function that generates its schema.
SCHEMAS = {
    "result.schema.json": result_schema,
    "spec.schema.json": spec_schema,
    "repeats.schema.json": repeats_schema,
    "sweep.schema.json": sweep_schema,
    "comparison.schema.json": comparison_schema,
    "cards.schema.json": cards_schema,
}


def text_of(name: str) -> str:
    """Return the content of the schema file `name`."""
    return json.dumps(SCHEMAS[name](), indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write every schema file."""
    FOLDER.mkdir(exist_ok=True)
    for name in SCHEMAS:
        (FOLDER / name).write_text(text_of(name), encoding="utf-8")


def _document(title: str, cls: type, *, complete: bool = True) -> dict[str, Any]:
    reference = {"$ref": f"#/$defs/{cls.__name__}"}
    return {"$schema": DRAFT, "title": title, **reference, "$defs": _definitions(cls, complete=complete)}


def _definitions(*classes: type, complete: bool = True) -> dict[str, Any]:
    """Return the schemas of `classes` and of the classes of their fields, by class name.

    `complete` requires every field, because eflm also writes the fields that have their default value.
    """
    import msgspec

    _, definitions = msgspec.json.schema_components(classes)
    for schema in definitions.values():
        schema["description"] = schema["description"].partition("\n")[0]
        schema["additionalProperties"] = False
        for field in schema["properties"].values():
            field.pop("default", None)  # the default of RunSpec.isolation depends on the platform
        if complete:
            schema["required"] = list(schema["properties"])
    for cls, rules in _FIELD_RULES.items():
        if cls.__name__ in definitions:
            for name, rule in rules.items():
                definitions[cls.__name__]["properties"][name] |= rule
    for cls, rule in _CLASS_RULES.items():
        if cls.__name__ in definitions:
            definitions[cls.__name__] |= rule
    return definitions


if __name__ == "__main__":
    main()
