"""Sweeps: `--set infer.batch_size=1,8,32` and `--quant fp32,int4` are several runs, one per combination."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product

from attrs import frozen

from eflm.errors import UsageError

_NUMBERS = re.compile(r"-?[\d.]+(e-?\d+)?(,-?[\d.]+(e-?\d+)?)+")


@frozen(kw_only=True)
class Point:
    """One run of a sweep. `values`: what it has in place of the swept ones, by flag or setting."""

    techniques: Mapping[str, str]
    settings: Mapping[str, str]
    values: Mapping[str, str]


def swept(techniques: Mapping[str, str], settings: Mapping[str, str]) -> tuple[str, ...]:
    """The flags and settings that have several values, separated by commas. Settings sweep over numbers only."""
    flags = [flag for flag, names in techniques.items() if "," in names]
    return (*flags, *(name for name, value in settings.items() if _NUMBERS.fullmatch(value.replace(" ", ""))))


def points(techniques: Mapping[str, str], settings: Mapping[str, str]) -> list[Point]:
    """The runs, in the order of the values; one if nothing is swept. UsageError for an empty value."""
    over = swept(techniques, settings)
    given = {**settings, **techniques}
    choices = [[part.strip() for part in given[name].split(",")] for name in over]
    for name, parts in zip(over, choices, strict=True):
        if "" in parts:
            raise UsageError(f"{name}={given[name]} has an empty value; separate values with single commas")
    found = []
    for chosen in product(*choices):
        point = dict(zip(over, chosen, strict=True))
        found.append(
            Point(
                techniques={flag: point.get(flag, name) for flag, name in techniques.items()},
                settings={name: point.get(name, value) for name, value in settings.items()},
                values=point,
            )
        )
    return found
