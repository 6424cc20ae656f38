"""The answer of a comparison in one sentence per side, made of differences that are larger than the noise.

"fp32 decodes 2.4 × faster than int4; int4's weights are 3.2 × smaller; perplexity +33%".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from attrs import frozen

from eflm_schemas import MetricInfo
from eflm_schemas.comparison import Difference

#: Speed by stage: the first metric that differs is used. (metric, verb)
SPEED = {
    "pretrain": (("AL", "pretrains"),),
    "finetune": (("AL", "fine-tunes"),),
    "infer": (
        ("decode_tokens_per_second", "decodes"),
        ("images_per_second", "generates images"),
        ("frames_per_second", "generates frames"),
        ("AL", "runs inference"),
    ),
}
#: Costs, from the last stage that has them: (metric, noun, verb, adjective)
COSTS = (
    ("memory_weights", "weights", "are", "smaller"),
    ("peak_memory", "peak memory", "is", "smaller"),
    ("energy_per_token", "energy per token", "is", "lower"),
)
#: Quality, from the last stage that has it: (metric, noun)
QUALITY = (
    ("PPL", "perplexity"),
    ("FD", "Fréchet distance"),
    ("vqa_accuracy", "accuracy"),
)
#: Metrics that a sentence can mention.
MENTIONED = frozenset(
    [name for choices in SPEED.values() for name, _ in choices]
    + [name for name, *_ in COSTS]
    + [name for name, _ in QUALITY]
)
#: Up to this many other metrics are mentioned if none of the above differs.
OTHERS = 3

Stages = Mapping[str, Mapping[str, tuple[Difference, ...]]]


@frozen
class _Pair:
    """One side and the baseline. `stages`: stage -> metric -> difference."""

    label: str
    baseline: str
    stages: Mapping[str, Mapping[str, Difference]]

    def significant(self, stage: str, metric: str) -> Difference | None:
        """The difference in `metric` if it has a ratio and is larger than the noise."""
        found = self.stages[stage].get(metric)
        return found if found and found.ratio and found.verdict in ("better", "worse", "differs") else None

    def last(self, metric: str) -> Difference | None:
        """The same in the last stage that has the metric."""
        having = [stage for stage, metrics in self.stages.items() if metric in metrics]
        return self.significant(having[-1], metric) if having else None


def answer(stages: Stages, labels: Sequence[str], infos: Mapping[str, MetricInfo]) -> tuple[str, ...]:
    """Return one sentence for each side after the first. It says so if no difference is larger than the noise."""
    return tuple(
        _sentence(_Pair(label, labels[0], _of_side(stages, number)), infos)
        for number, label in enumerate(labels[1:])
    )


def _of_side(stages: Stages, number: int) -> dict[str, dict[str, Difference]]:
    return {
        stage: {name: found[number] for name, found in metrics.items()} for stage, metrics in stages.items()
    }


def _sentence(pair: _Pair, infos: Mapping[str, MetricInfo]) -> str:
    speed, costs = list(_speed(pair)), list(_costs(pair))
    subject = costs[-1][0] if costs else ""
    clauses = [*speed, *(text for _, text in costs), *_quality(pair, subject)]
    return "; ".join(clauses or _others(pair, infos) or [_nothing(pair)])


def _speed(pair: _Pair) -> Iterator[str]:
    for stage in pair.stages:
        for metric, verb in SPEED.get(stage, ()):
            found = pair.significant(stage, metric)
            if found and found.ratio and found.verdict != "differs":
                fast, slow = pair.label, pair.baseline
                if found.verdict == "worse":
                    fast, slow = slow, fast
                factor = max(found.ratio, 1 / found.ratio)
                yield f"{fast} {verb} {_times(factor, factor - 1)} faster than {slow}"
                break


def _costs(pair: _Pair) -> Iterator[tuple[str, str]]:
    """The side that a clause is about, and the clause. Peak memory only if the weights do not differ."""
    mentioned: set[str] = set()
    for metric, noun, verb, adjective in COSTS:
        found = pair.last(metric)
        if found and found.ratio and not (metric == "peak_memory" and "memory_weights" in mentioned):
            mentioned.add(metric)
            low = pair.label if found.ratio < 1 else pair.baseline
            factor = max(found.ratio, 1 / found.ratio)
            yield low, f"{_of(low, noun)} {verb} {_times(factor, 1 - 1 / factor)} {adjective}"


def _quality(pair: _Pair, subject: str) -> Iterator[str]:
    """The change from the baseline to the side, which is named unless the last clause was about it."""
    for metric, noun in QUALITY:
        found = pair.last(metric)
        if found and found.ratio:
            named = noun if subject == pair.label else _of(pair.label, noun)
            change = (
                f"× {found.ratio:.1f}" if found.ratio >= 2 else f"{found.ratio - 1:+.{_digits(found.ratio)}%}"
            )
            yield f"{named} {change}"
            subject = pair.label


def _others(pair: _Pair, infos: Mapping[str, MetricInfo]) -> list[str]:
    found = []
    for stage, metrics in pair.stages.items():
        for name in metrics:
            if (difference := pair.significant(stage, name)) and difference.ratio:
                title = infos[name].title if name in infos else name
                found.append(
                    f"{title} of {pair.label} is {difference.ratio:.3g} × that of {pair.baseline} ({stage})"
                )
    return found[:OTHERS]


def _nothing(pair: _Pair) -> str:
    verdicts = {found.verdict for metrics in pair.stages.values() for found in metrics.values()}
    if "tie" in verdicts:
        return f"{pair.label} and {pair.baseline} tie: no difference is larger than the noise"
    return f"{pair.label} and {pair.baseline} have no metric that can be compared"


def _of(label: str, noun: str) -> str:
    return f"the {noun} of {label}" if " " in label else f"{label}'s {noun}"


def _times(factor: float, share: float) -> str:
    """ "2.4 ×", "12 ×", or for small factors "7%"."""
    if factor < 1.2:
        return f"{share:.{_digits(1 + share)}%}"
    return f"{factor:.1f} ×" if factor < 10 else f"{factor:,.0f} ×"


def _digits(ratio: float) -> int:
    """Decimals of a percentage: one below 10%."""
    return 0 if abs(ratio - 1) >= 0.1 else 1
