"""Sweeps: `--set infer.batch_size=1,8,32` stands for three runs, two such settings for every pair of their values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product

_NUMBERS = re.compile(r"-?[\d.]+(e-?\d+)?(,-?[\d.]+(e-?\d+)?)+")


def swept(settings: Mapping[str, str]) -> tuple[str, ...]:
    """The settings that have several values: numbers separated by commas."""
    return tuple(name for name, value in settings.items() if _NUMBERS.fullmatch(value.replace(" ", "")))


def points(settings: Mapping[str, str]) -> list[dict[str, str]]:
    """The settings of each run, in the order of the values; one where nothing is swept."""
    names = swept(settings)
    values = [settings[name].replace(" ", "").split(",") for name in names]
    return [{**settings, **dict(zip(names, chosen, strict=True))} for chosen in product(*values)]
