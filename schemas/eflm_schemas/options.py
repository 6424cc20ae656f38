"""Options of a plugin or stage: attrs fields that know their help, type and range.

A config class is written once and serves `--set`, `eflm show`, the docs and the error messages.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import attrs


class OptionError(ValueError):
    """A setting that cannot be: the message names it, what was given, and what is allowed."""


def option(
    default: Any,
    help: str,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    choices: tuple[Any, ...] | None = None,
) -> Any:
    """A field of a config class, with its default, one line of help, and the values it may take."""
    bounds = {">=": ge, ">": gt, "<=": le, "<": lt}
    bounds = {sign: bound for sign, bound in bounds.items() if bound is not None}

    def check(_instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value is None:
            return
        if choices is not None and value not in choices:
            raise OptionError(f"{attribute.name} must be {_allowed(attribute)}, not {value!r}")
        for sign, bound in bounds.items():
            held = {
                ">=": lambda v, b: v >= b,
                ">": lambda v, b: v > b,
                "<=": lambda v, b: v <= b,
                "<": lambda v, b: v < b,
            }
            if not held[sign](value, bound):
                raise OptionError(f"{attribute.name} must be {_allowed(attribute)}, not {value!r}")

    metadata = {"help": help, "bounds": bounds, "choices": choices}
    return attrs.field(default=default, validator=check, metadata=metadata)


@attrs.frozen
class OptionInfo:
    """One option as `eflm show` prints it."""

    name: str
    type: str
    default: Any
    allowed: str
    help: str


def describe(config: type) -> tuple[OptionInfo, ...]:
    """The options of a config class, in the order in which they are written."""
    hints = typing.get_type_hints(config)
    return tuple(
        OptionInfo(
            name=attribute.name,
            type=_type_name(hints[attribute.name]),
            default=attribute.default,
            allowed=_allowed(attribute),
            help=attribute.metadata.get("help", ""),
        )
        for attribute in attrs.fields(config)
    )


def parse(config: type, values: Mapping[str, Any], *, owner: str) -> Any:
    """Build `config` from values as typed on a command line or given from Python.

    Raises OptionError naming `owner.option`, its type and its range.
    """
    hints = typing.get_type_hints(config)
    known = {attribute.name: attribute for attribute in attrs.fields(config)}
    converted = {}
    for name, value in values.items():
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {owner}.{near[0]}?" if near else _options_of(owner, known)
            raise OptionError(f"{owner} has no option {name!r}; {hint}")
        try:
            converted[name] = _convert(value, hints[name])
        except ValueError:
            allowed = _allowed(known[name])
            wanted = _type_name(hints[name]) + (f", {allowed}" if allowed else "")
            raise OptionError(f"{owner}.{name} takes {wanted}; {value!r} is not one") from None
    try:
        return config(**converted)
    except OptionError as error:
        raise OptionError(f"{owner}.{error}") from None
    except ValueError as error:
        raise OptionError(f"{owner}: {error}") from None


def _options_of(owner: str, known: Mapping[str, Any]) -> str:
    return f"its options are {', '.join(sorted(known))}" if known else f"{owner} has no options"


def _allowed(attribute: attrs.Attribute[Any]) -> str:
    choices = attribute.metadata.get("choices")
    if choices is not None:
        return "one of " + ", ".join(map(str, choices))
    bounds = attribute.metadata.get("bounds") or {}
    return " and ".join(f"{sign} {bound}" for sign, bound in bounds.items())


def _alternatives(hint: Any) -> tuple[Any, ...]:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return typing.get_args(hint)
    return (hint,)


def _type_name(hint: Any) -> str:
    names = [
        "none" if kind is type(None) else getattr(kind, "__name__", str(kind)) for kind in _alternatives(hint)
    ]
    return " or ".join(names)


def _convert(value: Any, hint: Any) -> Any:
    kinds = _alternatives(hint)
    if value is None or (isinstance(value, str) and value.lower() == "none"):
        if type(None) in kinds:
            return None
        if str not in kinds:
            raise ValueError
    for kind in kinds:
        if kind is bool:
            if isinstance(value, bool):
                return value
            if isinstance(value, str) and value.lower() in ("true", "yes", "on", "1"):
                return True
            if isinstance(value, str) and value.lower() in ("false", "no", "off", "0"):
                return False
        elif kind is int:
            if isinstance(value, int) and not isinstance(value, bool):
                return _in_64_bits(value)
            if isinstance(value, str):
                try:
                    return _in_64_bits(int(value))
                except ValueError:
                    continue
        elif kind is float:
            if isinstance(value, int | float | str) and not isinstance(value, bool):
                try:
                    number = float(value)
                except (ValueError, OverflowError):
                    continue
                # Neither a result file (JSON) nor a bound can hold the others.
                if math.isfinite(number):
                    return number
        elif kind is str and isinstance(value, str):
            return value
    raise ValueError


def _in_64_bits(value: int) -> int:
    """Larger integers fit no tensor's size or index; refused here, they are not met in the middle of a run."""
    if abs(value) >= 2**63:
        raise ValueError
    return value
