"""Conversion of the data classes to and from plain dictionaries and JSON."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from attrs import AttrsInstance
from cattrs.preconf.json import make_converter

T = TypeVar("T")

_converter = make_converter(forbid_extra_keys=True, detailed_validation=True)


def _text(value: Any, _type: Any) -> str:
    # cattrs would convert None to "None".
    if not isinstance(value, str):
        raise ValueError(f"expected text, not {value!r}")
    return value


_converter.register_structure_hook(str, _text)


def to_dict(instance: AttrsInstance) -> dict[str, Any]:
    """Convert an attrs instance to dictionaries, lists and scalars."""
    plain: dict[str, Any] = _converter.unstructure(instance)
    return plain


def from_dict(data: Any, cls: type[T]) -> T:
    """Convert the output of `to_dict` to an instance of `cls`. Raises cattrs' ClassValidationError if it is invalid."""
    return _converter.structure(data, cls)


def to_json(instance: AttrsInstance, *, indent: int | None = None) -> str:
    """Convert an attrs instance to JSON. Raises ValueError for NaN and infinity, which JSON cannot represent."""
    return json.dumps(to_dict(instance), indent=indent, allow_nan=False, ensure_ascii=False)
