"""Explains why a side is slower. Each sentence contains the measured figures that support it.

If the figures explain nothing, there is no sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from attrs import frozen

from eflm.results.aggregation import flags_of, pool
from eflm_schemas import Flag, RunResult
from eflm_schemas.comparison import Difference

#: Differences in the shares of operators and in rates up to this are not mentioned.
GROWTH = 0.10
#: Parts of the names of operators that dequantize weights, in torch and bitsandbytes.
DEQUANTIZATION = ("dequant", "4bit", "8bit")
#: A GPU that runs kernels for a smaller share of the time waits for the CPU to launch them.
LAUNCH_BOUND = 0.5
#: With fewer operations per byte of weights, reading the weights takes longer than computing with them, on all hardware
#: in the table of `eflm.worker.gpus`.
MEMORY_BOUND = 20.0
#: Flags about a substitute for what was requested.
FALLBACKS = ("backend_fallback", "device_fallback", "not_merged", "context_clipped")


@frozen
class _Seen:
    """The measurements of one stage of one side."""

    stage: str
    runs: Sequence[RunResult]

    @property
    def facts(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.runs[0].facts.get(self.stage, {})
        return found

    @property
    def operators(self) -> Mapping[str, float]:
        found: Mapping[str, float] = self.facts.get("operators", {})
        return found

    @property
    def device(self) -> str:
        return self.runs[0].environment.device

    def value(self, metric: str) -> float | None:
        """The mean of a metric over the runs."""
        found = [run.stages[self.stage].metrics.get(metric) for run in self.runs]
        known = [metric for metric in found if metric is not None]
        return pool(known).value if known else None

    @property
    def operations(self) -> float | None:
        """Floating-point operations of one step or request."""
        rate, seconds = self.value("FLOPS"), self.value("AL")
        return None if rate is None or seconds is None else rate * seconds

    def flags(self, *names: str) -> Iterator[Flag]:
        """The runs' flags with one of these names, for this stage or the whole run, each once."""
        return (
            flag for flag in flags_of(self.runs) if flag.name in names and flag.stage in (None, self.stage)
        )


def reasons(
    stage: str, latency: Sequence[Difference], sides: Sequence[Sequence[RunResult]], labels: Sequence[str]
) -> tuple[str, ...]:
    """Explain, for each side after the first, why it or the baseline is slower in a stage.

    `latency`: the differences in AL of these sides. A side that ties has no sentence.
    """
    found: list[str] = []
    for difference, runs, label in zip(latency, sides[1:], labels[1:], strict=False):
        if difference.verdict not in ("better", "worse"):
            continue
        slow, fast, names = _Seen(stage, runs), _Seen(stage, sides[0]), (label, labels[0])
        if difference.verdict == "better":
            slow, fast, names = fast, slow, (labels[0], label)
        sentences = [sentence for explain in _EXPLANATIONS for sentence in explain(slow, fast)]
        found += [f"{names[0]} is slower than {names[1]}: {sentence}" for sentence in sentences]
    return tuple(found)


def _fallbacks(slow: _Seen, _fast: _Seen) -> Iterator[str]:
    for flag in slow.flags(*FALLBACKS):
        yield flag.detail


def _more_work(slow: _Seen, fast: _Seen) -> Iterator[str]:
    more, less = slow.operations, fast.operations
    if more is not None and less is not None and less and more / less > 1 + GROWTH:
        yield f"it does {more / less:.2g} times the operations ({more:.3g} and {less:.3g} FLOP)"


def _slower_work(slow: _Seen, fast: _Seen) -> Iterator[str]:
    rate, other = slow.value("FLOPS"), fast.value("FLOPS")
    if rate and other and other / rate > 1 + GROWTH:
        yield f"it computes at {rate / 1e9:.3g} GFLOP/s, the other side at {other / 1e9:.3g} GFLOP/s"


def _many_calls(slow: _Seen, fast: _Seen) -> Iterator[str]:
    calls, others = slow.facts.get("operator_calls"), fast.facts.get("operator_calls")
    if calls and others and calls / others > 1 + 2 * GROWTH:
        yield (
            f"a {'request' if slow.stage == 'infer' else 'step'} calls {calls:,} operators, {others:,} on the other "
            "side; each call has a fixed cost"
        )


def _dequantization(slow: _Seen, _fast: _Seen) -> Iterator[str]:
    share = sum(part for name, part in slow.operators.items() if any(mark in name for mark in DEQUANTIZATION))
    if share > GROWTH:
        yield f"dequantizing weights takes {share:.0%} of its operators' time"


def _operators(slow: _Seen, fast: _Seen) -> Iterator[str]:
    """The two operators whose share of the time is most above that on the other side."""
    if not fast.operators:
        return
    growth = {name: share - fast.operators.get(name, 0.0) for name, share in slow.operators.items()}
    for name, more in sorted(growth.items(), key=lambda item: item[1], reverse=True)[:2]:
        if more > GROWTH:
            here, there = slow.operators[name], fast.operators.get(name)
            other = (
                "is not among the main operators of the other side"
                if there is None
                else f"takes {there:.0%} there"
            )
            yield f"{name} takes {here:.0%} of its operators' time and {other}"


def _launches(slow: _Seen, _fast: _Seen) -> Iterator[str]:
    busy = slow.value("utilization")
    if busy is not None and busy < LAUNCH_BOUND and slow.device.startswith("cuda"):
        yield (
            f"the GPU ran kernels for only {busy:.0%} of the time and waited for launches otherwise; a larger batch or "
            "torch.compile does more work per launch"
        )


def _memory(slow: _Seen, _fast: _Seen) -> Iterator[str]:
    """A batch so small that reading the weights limits decoding."""
    rate, seconds, weights = slow.value("FLOPS"), slow.value("TPOT"), slow.facts.get("bytes")
    generated = slow.value("decode_tokens_per_second")
    if slow.stage != "infer" or not (rate and seconds and weights and generated):
        return
    batch = generated * seconds
    per_byte = 2 * slow.facts["parameters"] * batch / weights
    if per_byte < MEMORY_BOUND:
        yield (
            f"decoding does about {per_byte:.2g} operations per byte of weights, so it is bound by memory; a batch "
            f"larger than {batch:.2g} would use each read more often"
        )


_EXPLANATIONS: tuple[Callable[[_Seen, _Seen], Iterator[str]], ...] = (
    _fallbacks,
    _more_work,
    _slower_work,
    _many_calls,
    _dequantization,
    _operators,
    _launches,
    _memory,
)
