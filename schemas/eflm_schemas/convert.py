"""To and from plain dictionaries, for JSON: the only place that knows how."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from attrs import AttrsInstance
from cattrs.preconf.json import make_converter

T = TypeVar("T")

_converter = make_converter(forbid_extra_keys=True, detailed_validation=True)


def to_dict(instance: AttrsInstance) -> dict[str, Any]:
    """An attrs instance as dictionaries, lists and scalars."""
    plain: dict[str, Any] = _converter.unstructure(instance)
    return plain


def from_dict(data: Any, cls: type[T]) -> T:
    """The instance that `to_dict` made `data` from; cattrs' ClassValidationError when it does not fit."""
    return _converter.structure(data, cls)


def to_json(instance: AttrsInstance, *, indent: int | None = None) -> str:
    """One JSON document. NaN and infinities are refused: they are not JSON."""
    return json.dumps(to_dict(instance), indent=indent, allow_nan=False, ensure_ascii=False)
