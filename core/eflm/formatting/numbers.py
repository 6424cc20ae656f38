"""Formats numbers for people, with three significant digits or more and a suitable unit. JSON keeps all digits."""

from __future__ import annotations

import math
from decimal import Decimal

from attrs import frozen

#: Unit -> its multiples, each with the power of ten from which it is used.
_SCALES: dict[str, tuple[tuple[int, str], ...]] = {
    "s": ((0, "s"), (-3, "ms"), (-6, "µs"), (-9, "ns")),
    "B": ((12, "TB"), (9, "GB"), (6, "MB"), (3, "kB"), (0, "B")),
    "J": ((6, "MJ"), (3, "kJ"), (0, "J"), (-3, "mJ"), (-6, "µJ")),
    "W": ((3, "kW"), (0, "W"), (-3, "mW")),
    "FLOP": ((18, "EFLOP"), (15, "PFLOP"), (12, "TFLOP"), (9, "GFLOP"), (6, "MFLOP"), (0, "FLOP")),
}
#: Units that already are multiples.
_MULTIPLES = {"GB": (9, "B"), "MB": (6, "B"), "ms": (-3, "s"), "kJ": (3, "J")}
#: Rates per parameter are tiny. They are written per million, per 10⁹ or per 10¹² parameters.
_PER_PARAMETER = "/param/"
_PARAMETERS = ((0, "param"), (6, "Mparam"), (9, "Gparam"), (12, "Tparam"))

_DIGITS = 3  #: significant digits of a value
_MORE_DIGITS = 2  #: digits beyond these if a narrow spread justifies them
_SMALLEST, _LARGEST = -4, 11  #: powers of ten that are written without an exponent


def scale(value: float, unit: str) -> tuple[float, str]:
    """Return (factor, unit) to write numbers close to `value`: `scale(0.0123, "s")` is `(1000.0, "ms")`.

    In a ratio such as "J/token" the first unit is scaled, in a rate per parameter the number of parameters.
    """
    if value == 0 or not math.isfinite(value):
        return 1.0, unit
    if _PER_PARAMETER in unit:
        power = _magnitude(value)
        exponent, name = next(((e, n) for e, n in _PARAMETERS if power + e >= 0), _PARAMETERS[-1])
        return 10.0**exponent, unit.replace(_PER_PARAMETER, f"/{name}/")
    first, slash, per = unit.partition("/")
    power, base = _MULTIPLES.get(first, (0, first))
    if base not in _SCALES:
        return 1.0, unit
    magnitude = _magnitude(value) + power
    choices = _SCALES[base]
    exponent, name = next(((e, n) for e, n in choices if magnitude >= e), choices[-1])
    return 10.0 ** (power - exponent), f"{name}{slash}{per}"


@frozen
class Notation:
    """The exponent and the number of decimals of numbers that are printed together, such as a value and its spread."""

    decimals: int
    exponent: int | None = None  #: None: no exponent

    def write(self, value: float) -> str:
        """Return `value` in this notation."""
        if not math.isfinite(value):
            return f"{value:g}"
        if self.exponent is None:
            return f"{value:,.{self.decimals}f}"
        return f"{Decimal(value).scaleb(-self.exponent):.{self.decimals}f}e{self.exponent:+03d}"


def notation(value: float, spread: float | None = None) -> Notation:
    """Return the notation for `value` and its spread.

    It shows three significant digits of the value, all digits of its integer part, and up to two more digits if the
    spread is too small to be seen otherwise.
    """
    known = [number for number in (value, spread) if number and math.isfinite(number)]
    if not known:
        return Notation(0)
    magnitude = _magnitude(known[0])
    exponent = None if _SMALLEST <= magnitude <= _LARGEST else magnitude
    digits = max(0, _DIGITS - 1 - (0 if exponent is not None else magnitude))
    if spread and math.isfinite(spread):
        first = (exponent or 0) - _magnitude(spread, 1)  # the decimal of its first digit
        digits = max(digits, min(first, digits + _MORE_DIGITS))
    return Notation(digits, exponent)


def number(value: float, *, decimals: int | None = None) -> str:
    """Return `value` with three significant digits, or with the given decimals."""
    return (notation(value) if decimals is None else Notation(decimals)).write(value)


def plus_minus(value: float, spread: float) -> str:
    """Return "value ± spread" in one notation."""
    shared = notation(value, spread)
    return f"{shared.write(value)} ± {shared.write(spread)}"


def _magnitude(value: float, digits: int = _DIGITS) -> int:
    """Return the power of ten of the first digit of `value`, rounded to `digits` digits."""
    return int(f"{value:.{digits - 1}e}".partition("e")[2])
