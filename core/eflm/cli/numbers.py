"""How figures are written for people: three significant digits in a unit that fits. JSON keeps them raw."""

from __future__ import annotations

import math

#: Unit -> larger or smaller names of it, by the power of ten at which each takes over.
_SCALES: dict[str, tuple[tuple[int, str], ...]] = {
    "s": ((0, "s"), (-3, "ms"), (-6, "µs"), (-9, "ns")),
    "B": ((12, "TB"), (9, "GB"), (6, "MB"), (3, "kB"), (0, "B")),
    "J": ((6, "MJ"), (3, "kJ"), (0, "J"), (-3, "mJ"), (-6, "µJ")),
    "W": ((3, "kW"), (0, "W"), (-3, "mW")),
    "FLOP": ((18, "EFLOP"), (15, "PFLOP"), (12, "TFLOP"), (9, "GFLOP"), (6, "MFLOP"), (0, "FLOP")),
}
#: Units that are scaled already.
_MULTIPLES = {"GB": (9, "B"), "MB": (6, "B"), "ms": (-3, "s"), "kJ": (3, "J")}
_DIGITS = 3


def scale(value: float, unit: str) -> tuple[float, str]:
    """(factor, unit) to write figures around `value` in: `scale(0.0123, "s")` is `(1000.0, "ms")`.

    Of a ratio such as "J/token" the first unit is scaled.
    """
    first, slash, per = unit.partition("/")
    power, base = _MULTIPLES.get(first, (0, first))
    if base not in _SCALES or value == 0 or not math.isfinite(value):
        return 1.0, unit
    magnitude = math.floor(math.log10(abs(value))) + power
    choices = _SCALES[base]
    exponent, name = next(((e, n) for e, n in choices if magnitude >= e), choices[-1])
    return 10.0 ** (power - exponent), f"{name}{slash}{per}"


def number(value: float, *, decimals: int | None = None) -> str:
    """Three significant digits, or as many decimals as asked; no exponent where that can be read."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    magnitude = math.floor(math.log10(abs(value)))
    if decimals is None and (magnitude < -4 or magnitude > 11):
        return f"{value:.{_DIGITS - 1}e}"
    places = decimals_of(value) if decimals is None else decimals
    return f"{value:,.{places}f}"


def decimals_of(value: float) -> int:
    """Decimals that show `value` with three significant digits; whole numbers keep all their digits."""
    if value == 0 or not math.isfinite(value):
        return 0
    return max(0, _DIGITS - 1 - math.floor(math.log10(abs(value))))
