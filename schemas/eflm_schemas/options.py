"""Defines the options of plugins and stages: attrs fields with a help text, a type and the allowed values.

`--set`, `eflm show`, the reference pages and the error messages read them from the config class of a plugin or stage.
"""

from __future__ import annotations

import math
import operator
import types
import typing
from collections.abc import Callable, Mapping
from contextlib import suppress
from difflib import get_close_matches
from typing import Any

import attrs

_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
}

#: Type of an option -> types of the values that can be converted to it.
_CONVERTIBLE: dict[Any, tuple[type, ...]] = {
    type(None): (type(None), str),
    bool: (bool, str),
    int: (int, str),
    float: (int, float, str),
    str: (str,),
}
#: Type of an option -> its values by the words that stand for them, in lower case.
_WORDS: dict[Any, dict[str, bool | None]] = {
    type(None): {"none": None},
    bool: {
        **dict.fromkeys(("true", "yes", "on", "1"), True),
        **dict.fromkeys(("false", "no", "off", "0"), False),
    },
}


class OptionError(ValueError):
    """An option is invalid. The message contains its name, the given value and the allowed values."""


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
    """Declare a field of a config class with its default, one line of help and the allowed values.

    A value must be one of `choices` and within the bounds, if these are given. None is always allowed if the type of
    the field includes it.
    """
    bounds = {">=": ge, ">": gt, "<=": le, "<": lt}
    bounds = {sign: bound for sign, bound in bounds.items() if bound is not None}

    def check(_instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value is None:
            return
        allowed = choices is None or value in choices
        if not allowed or not all(_COMPARISONS[sign](value, bound) for sign, bound in bounds.items()):
            raise OptionError(f"{attribute.name} must be {_allowed(attribute)}, not {value!r}")

    metadata = {"help": help, "bounds": bounds, "choices": choices}
    return attrs.field(default=default, validator=check, metadata=metadata)


@attrs.frozen
class OptionInfo:
    """The description of an option that `eflm show` prints."""

    name: str
    type: str
    default: Any
    allowed: str
    help: str


def describe(config: type) -> tuple[OptionInfo, ...]:
    """Return the options of a config class in the order of their definition."""
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
    """Build an instance of `config` from Python values or from text of the command line.

    `owner` is the name of the plugin or stage, for the error messages.

    Raises OptionError if an option does not exist, or if its value has the wrong type or is out of range.
    """
    hints = typing.get_type_hints(config)
    known = {attribute.name: attribute for attribute in attrs.fields(config)}
    converted = {}
    for name, value in values.items():
        if name not in known:
            near = get_close_matches(name, known, n=1)
            if not known:
                raise OptionError(f"{owner} has no options; leave {owner}.{name} out")
            hint = (
                f"did you mean {owner}.{near[0]}?" if near else f"its options are {', '.join(sorted(known))}"
            )
            raise OptionError(f"{owner} has no option {name!r}; {hint}")
        try:
            converted[name] = _convert(value, hints[name])
        except ValueError:
            allowed = _allowed(known[name])
            expected = _type_name(hints[name]) + (f", {allowed}" if allowed else "")
            raise OptionError(f"{owner}.{name} must be {expected}, not {value!r}") from None
    try:
        return config(**converted)
    except OptionError as error:
        raise OptionError(f"{owner}.{error}") from None
    except ValueError as error:
        raise OptionError(f"{owner}: {error}") from None


def _allowed(attribute: attrs.Attribute[Any]) -> str:
    choices = attribute.metadata.get("choices")
    bounds = attribute.metadata.get("bounds") or {}
    limits = [] if choices is None else ["one of " + ", ".join(map(str, choices))]
    limits += [f"{sign} {bound}" for sign, bound in bounds.items()]
    return " and ".join(limits)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def _type_name(hint: Any) -> str:
    names = [
        "none" if kind is type(None) else getattr(kind, "__name__", str(kind)) for kind in _alternatives(hint)
    ]
    return " or ".join(names)


def _convert(value: Any, hint: Any) -> Any:
    """Convert `value` to None if the union `hint` allows that, otherwise to its first type that accepts `value`.

    Raises ValueError if no type accepts `value`.
    """
    # None is tried first, so that the text "none" means None for `str | None`, too.
    for kind in sorted(_alternatives(hint), key=lambda kind: kind is not type(None)):
        with suppress(ValueError, KeyError, OverflowError):
            return _convert_to(kind, value)
    raise ValueError


def _convert_to(kind: Any, value: Any) -> Any:
    convertible = isinstance(value, _CONVERTIBLE.get(kind, ()))
    if not convertible or (isinstance(value, bool) and kind is not bool):
        raise ValueError
    if kind in _WORDS:
        return _WORDS[kind][str(value).lower()]
    converted = kind(value)
    # Larger integers fit no tensor size or index: refuse them before the run starts.
    if kind is int and abs(converted) >= 2**63:
        raise ValueError
    # JSON and the bounds cannot represent NaN or infinity.
    if kind is float and not math.isfinite(converted):
        raise ValueError
    return converted
