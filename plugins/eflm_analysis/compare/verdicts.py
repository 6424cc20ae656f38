"""Decides whether the difference of two figures is larger than the noise: a ratio, its interval, and a verdict.

Figures are compared as logarithms, so that A over B and B over A get the same verdict. With two or more runs on each
side, the interval is Welch's, from the spread between runs. Few runs can lie close together by chance, so a spread that
is smaller than usual is moderated, as if the sample contained runs of the usual spread (Smyth 2004, section 4). With
fewer runs, the spread between two runs of one question is not measured. The interval then combines each run's own
spread with an assumed spread between runs, which the basis states.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from attrs import evolve

from eflm.statistics import mean, standard_deviation, t_quantile
from eflm_schemas import Metric, MetricInfo
from eflm_schemas.comparison import Difference, Verdict

#: Assumed relative standard deviation between two runs of one question. On a CPU, memory placement and other work
#: differ between processes: we measured 8% between runs whose own windows agreed to 3%.
ASSUMED_NOISE = {"cpu": 0.10, "cuda": 0.03}
#: The same if other work disturbed a run.
ASSUMED_NOISE_DISTURBED = 0.25
#: A measured spread is moderated with this many degrees of freedom of this relative standard deviation.
PRIOR_FREEDOM, PRIOR_NOISE = 4, {"cpu": 0.06, "cuda": 0.02}
#: A smaller relative difference is always a tie.
MARGIN = 0.01
#: Flags of runs whose figures depend on something else than the techniques.
CONTAMINATION = frozenset(
    {"busy_cores", "busy_machine", "swapping", "shared_device", "throttled", "clock_change"}
)


def difference(
    a: Sequence[Metric],
    b: Sequence[Metric],
    info: MetricInfo,
    *,
    names: tuple[str, str] = ("A", "B"),
    device: str = "cpu",
    disturbed: bool = False,
    margin: float = MARGIN,
) -> Difference:
    """Compare A with B, the baseline. Each has one metric per run. `device` is "cpu" or "cuda"."""
    unknown = [reason for side, name in zip((a, b), names, strict=True) for reason in _missing(side, name)]
    left, right = _values(a), _values(b)
    if unknown:
        return _undecided(info, left, right, "; ".join(unknown))
    if mixed := _estimated_and_measured(a, b, names):
        return _undecided(info, left, right, mixed)
    if min(*left, *right) <= 0:
        if set(left) == set(right) and len(set(left)) == 1:
            return Difference(
                unit=info.unit, better=info.better, value=left[0], baseline=right[0], ratio=None, interval=None,
                verdict="tie", basis="equal",
            )  # fmt: skip
        return _undecided(info, left, right, "figures at or below zero have no ratio")
    if set(left) != set(right) and _of_unknown_spread(a, b):
        basis = "one sample each, with an unknown spread"
        return evolve(_undecided(info, left, right, basis), ratio=mean(left) / mean(right))
    logs = [[math.log(value) for value in side] for side in (left, right)]
    middle = mean(logs[0]) - mean(logs[1])
    parts, basis = _uncertainty(a, b, logs, device, disturbed)
    half = _half_width(parts)
    low, high = math.exp(middle - half), math.exp(middle + half)
    return Difference(
        unit=info.unit,
        better=info.better,
        value=mean(left),
        baseline=mean(right),
        ratio=math.exp(middle),
        interval=(low, high),
        verdict=_verdict(low, high, math.exp(middle), info.better, margin),
        basis=basis,
    )


def _estimated_and_measured(a: Sequence[Metric], b: Sequence[Metric], names: tuple[str, str]) -> str:
    """Why the verdict is unknown if some values are estimated and others are not, else nothing.

    The error of an estimate is unknown and can be larger than any difference between the sides.
    """
    estimated = [[metric.provenance == "estimated" for metric in side] for side in (a, b)]
    if len({one for side in estimated for one in side}) < 2:
        return ""
    origins = [
        "estimated" if all(side) else "partly estimated" if any(side) else "measured" for side in estimated
    ]
    sides = " and ".join(f"{name} is {origin}" for name, origin in zip(names, origins, strict=True))
    return f"{sides}; estimated and measured values are not comparable"


def _of_unknown_spread(a: Sequence[Metric], b: Sequence[Metric]) -> bool:
    """Whether a score has no interval. Runs of one seed give the same score, so repeating them does not help."""
    metrics = (*a, *b)
    return all(metric.provenance == "evaluated" for metric in metrics) and any(
        metric.ci95 is None for metric in metrics
    )


def _verdict(low: float, high: float, ratio: float, better: str, margin: float) -> Verdict:
    if low <= 1 <= high or abs(math.log(ratio)) < math.log1p(margin):
        return "tie"
    if better == "neither":
        return "differs"
    return "better" if (ratio < 1) == (better == "lower") else "worse"


#: Variances of the difference with their degrees of freedom, which are infinite for an assumed variance.
Parts = list[tuple[float, float]]


def _uncertainty(
    a: Sequence[Metric], b: Sequence[Metric], logs: Sequence[Sequence[float]], device: str, disturbed: bool
) -> tuple[Parts, str]:
    provenances = {metric.provenance for metric in (*a, *b)}
    if provenances == {"counted"}:
        return [], "counted exactly"
    if provenances == {"evaluated"}:
        # Runs of one seed are the same training, so only the held-out data contributes to the variance.
        parts = [_own(side[0], 1) for side in (a, b)]
        return parts, "the spread of the held-out data; one training per side"
    runs = [len(side) for side in logs]
    if min(runs) >= 2:
        return [
            _between(side, PRIOR_NOISE[device]) for side in logs
        ], f"between runs: {runs[0]} and {runs[1]}"
    noise = ASSUMED_NOISE_DISTURBED if disturbed else ASSUMED_NOISE[device]
    parts = [part for side in (a, b) for part in (_own(side[0], len(side)), (noise**2 / len(side), math.inf))]
    return parts, f"within single runs, and ±{noise:.0%} assumed between them; --repeat measures it"


def _between(logs: Sequence[float], usual: float) -> tuple[float, float]:
    """The variance of the mean over runs, and its degrees of freedom. The prior can only increase the variance."""
    spread = standard_deviation(logs)
    assert spread is not None
    freedom = len(logs) - 1.0
    moderated = (freedom * spread**2 + PRIOR_FREEDOM * usual**2) / (freedom + PRIOR_FREEDOM)
    return max(spread**2, moderated) / len(logs), freedom


def _own(metric: Metric, runs: int) -> tuple[float, float]:
    """The relative variance of one run's mean, and its degrees of freedom."""
    assert metric.value is not None
    if metric.ci95 is None or not metric.n or metric.n < 2:
        return 0.0, math.inf
    freedom = metric.n - 1.0
    standard_error = (metric.ci95[1] - metric.ci95[0]) / 2 / t_quantile(0.975, freedom)
    return (standard_error / metric.value) ** 2 / runs, freedom


def _half_width(parts: Parts) -> float:
    """Half the width of the 95% interval, with the Welch–Satterthwaite degrees of freedom."""
    variance = math.fsum(part for part, _ in parts)
    if variance == 0:
        return 0.0
    denominator = math.fsum(part**2 / freedom for part, freedom in parts)
    freedom = variance**2 / denominator if denominator else math.inf
    # For more degrees of freedom, Student's t and the normal distribution agree to four digits.
    return t_quantile(0.975, min(freedom, 10_000.0)) * math.sqrt(variance)


def _values(metrics: Sequence[Metric]) -> list[float]:
    return [metric.value for metric in metrics if metric.value is not None]


def _missing(metrics: Sequence[Metric], name: str) -> list[str]:
    if not metrics:
        return [f"{name} does not have this metric"]
    return [f"{name}: {metric.reason}" for metric in metrics if metric.value is None][:1]


def _undecided(info: MetricInfo, left: Sequence[float], right: Sequence[float], basis: str) -> Difference:
    return Difference(
        unit=info.unit, better=info.better, value=mean(left) if left else None, baseline=mean(right) if right else None,
        ratio=None, interval=None, verdict="unknown", basis=basis,
    )  # fmt: skip
