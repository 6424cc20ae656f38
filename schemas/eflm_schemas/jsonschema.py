"""JSON Schema (draft 2020-12) of the documents that eflm writes and reads, generated from the classes.

`python -m eflm_schemas.jsonschema` writes them beside this file, under `json/`; a test holds them in sync.
Whoever reads results with another language validates against them.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from eflm_schemas.cards import KINDS, Ref
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

_SCALARS: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    type(None): {"type": "null"},
    Any: {},
}

#: What the types alone do not say.
_UNAVAILABLE = {
    "properties": {"value": {"type": "null"}, "reason": {"type": "string", "minLength": 1}},
    "required": ["value", "reason"],
}
_RULES: dict[type, dict[str, Any]] = {
    Metric: {
        "if": {"properties": {"provenance": {"const": "unavailable"}}},
        "then": _UNAVAILABLE,
        "else": {"properties": {"value": {"type": "number"}}},
    },
    RunResult: {
        "properties": {
            "schema": {"const": SCHEMA},
            "stages": {"propertyNames": {"enum": list(STAGES)}},
        },
        "if": {"properties": {"status": {"const": "failed"}}},
        "then": {"properties": {"reason": {"type": "string", "minLength": 1}}},
        "else": {"properties": {"reason": {"type": "null"}}},
    },
    Repeats: {"properties": {"schema": {"const": REPEATS_SCHEMA}}},
    Sweep: {"properties": {"schema": {"const": SWEEP_SCHEMA}}},
    Comparison: {"properties": {"schema": {"const": COMPARISON_SCHEMA}}},
    RunSpec: {
        "properties": {
            "stages": {"items": {"enum": list(STAGES)}, "uniqueItems": True},
            "seed": {"minimum": 0},
            "processes": {"minimum": 1},
            "isolation": {"enum": list(ISOLATIONS)},
            "precision": {"exclusiveMinimum": 0, "maximum": 1},
            "timeout": {"exclusiveMinimum": 0},
        }
    },
    Ref: {"properties": {"target": {"pattern": r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$"}}},
}


def result_schema() -> dict[str, Any]:
    """Of a result file, and of `eflm bench --json`."""
    return _document("eflm result", RunResult, written=True)


def repeats_schema() -> dict[str, Any]:
    """Of `eflm bench --repeat N --json`."""
    return _document("eflm repeats", Repeats, written=True)


def sweep_schema() -> dict[str, Any]:
    """Of `eflm bench --set OWNER.OPTION=1,2,3 --json`."""
    return _document("eflm sweep", Sweep, written=True)


def comparison_schema() -> dict[str, Any]:
    """Of `eflm compare --json`."""
    return _document("eflm comparison", Comparison, written=True)


def spec_schema() -> dict[str, Any]:
    """Of a run spec as a user may write it: what has a default may be left out."""
    return _document("eflm run spec", RunSpec, written=False)


def cards_schema() -> dict[str, Any]:
    """Of `eflm show --json`: a card of any kind, with its options and origin."""
    builder = _Builder(written=True)
    text = {"type": "string"}
    common = {
        "schema": {"const": CARD_SCHEMA},
        "options": {"type": "array", "items": builder.of(OptionInfo)},
        "distribution": text,
        "version": text,
        "status": {"enum": ["ready", "needs", "broken"]},
        "detail": text,
        "notes": {"type": "array", "items": text},
    }
    kinds = [
        {"properties": {"kind": {"const": kind}, "card": builder.of(card)}} for kind, card in KINDS.items()
    ]
    return {
        "$schema": DRAFT,
        "title": "eflm card",
        "type": "object",
        "properties": {**common, "kind": {"enum": list(KINDS)}, "card": {"type": "object"}},
        "required": [*common, "kind", "card"],
        "additionalProperties": False,
        "oneOf": kinds,
        "$defs": builder.definitions,
    }


#: File name -> what generates it.
SCHEMAS = {
    "result.schema.json": result_schema,
    "spec.schema.json": spec_schema,
    "repeats.schema.json": repeats_schema,
    "sweep.schema.json": sweep_schema,
    "comparison.schema.json": comparison_schema,
    "cards.schema.json": cards_schema,
}


def text_of(name: str) -> str:
    """The content of the file `name`."""
    return json.dumps(SCHEMAS[name](), indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write every schema file."""
    FOLDER.mkdir(exist_ok=True)
    for name in SCHEMAS:
        (FOLDER / name).write_text(text_of(name), encoding="utf-8")


def _document(title: str, cls: type, *, written: bool) -> dict[str, Any]:
    builder = _Builder(written=written)
    reference = builder.of(cls)
    return {"$schema": DRAFT, "title": title, **reference, "$defs": builder.definitions}


class _Builder:
    """Turns classes into definitions. `written`: a document of ours has every field, defaults included."""

    def __init__(self, *, written: bool) -> None:
        self._written = written
        self.definitions: dict[str, Any] = {}

    def of(self, hint: Any) -> dict[str, Any]:
        """The schema of a type annotation."""
        if hint in _SCALARS:
            return dict(_SCALARS[hint])
        if isinstance(hint, type) and attrs.has(hint):
            return self._reference(hint)
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin is Literal:
            return {"enum": list(arguments)}
        if origin in (typing.Union, types.UnionType):
            return self._union(arguments)
        if origin is tuple:
            return self._tuple(arguments)
        if origin is Mapping or origin is dict:
            return {"type": "object", "additionalProperties": self.of(arguments[1])}
        raise TypeError(f"there is no JSON Schema for {hint!r} yet; teach eflm_schemas.jsonschema")

    def _reference(self, cls: type) -> dict[str, Any]:
        if cls.__name__ not in self.definitions:
            self.definitions[cls.__name__] = {}  # holds the place: a class may refer to itself
            self.definitions[cls.__name__] = self._object(cls)
        return {"$ref": f"#/$defs/{cls.__name__}"}

    def _object(self, cls: type) -> dict[str, Any]:
        hints = typing.get_type_hints(cls)
        rules = dict(_RULES.get(cls, {}))
        refined = rules.pop("properties", {})
        fields = attrs.fields(cls)
        properties = {f.name: {**self.of(hints[f.name]), **refined.get(f.name, {})} for f in fields}
        required = [f.name for f in fields if self._written or f.default is attrs.NOTHING]
        return {
            "type": "object",
            "description": (cls.__doc__ or "").strip().partition("\n")[0],
            "properties": properties,
            "required": required,
            "additionalProperties": False,
            **rules,
        }

    def _union(self, arguments: tuple[Any, ...]) -> dict[str, Any]:
        choices = [self.of(argument) for argument in arguments]
        if all(set(choice) == {"type"} for choice in choices):
            return {"type": [choice["type"] for choice in choices]}
        return {"anyOf": choices}

    def _tuple(self, arguments: tuple[Any, ...]) -> dict[str, Any]:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return {"type": "array", "items": self.of(arguments[0])}
        items = [self.of(argument) for argument in arguments]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}


if __name__ == "__main__":
    main()
