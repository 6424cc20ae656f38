"""Why a side is slower: sentences made of what its runs measured, each with the figures that it rests on.

Nothing here measures, and nothing is guessed: where the figures explain nothing, there is no sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from attrs import frozen

from eflm.results.aggregation import flags_of, pool
from eflm_schemas import Flag, RunResult
from eflm_schemas.comparison import Difference

#: An operator's share of a side's time must be so much larger than on the other side to be worth a word.
GROWTH = 0.10
#: Operators that turn quantized weights into numbers, by what torch and bitsandbytes call them.
DEQUANTIZATION = ("dequant", "4bit", "8bit")
#: Below this share of time with a running kernel, a GPU waits for the CPU to launch work.
LAUNCH_BOUND = 0.5
#: Operations for each byte of weights under which reading the weights takes longer than computing with them, on any
#: hardware of the table in `eflm.worker.gpus`.
MEMORY_BOUND = 20.0
#: Flags that say that something stood in for what was asked.
FALLBACKS = ("backend_fallback", "device_fallback", "not_merged", "context_clipped")


@frozen
class _Seen:
    """One stage of one side, as its runs tell it."""

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
        """The mean over the runs."""
        found = [run.stages[self.stage].metrics.get(metric) for run in self.runs]
        known = [metric for metric in found if metric is not None]
        return pool(known).value if known else None

    @property
    def operations(self) -> float | None:
        """Of one step or request."""
        rate, seconds = self.value("FLOPS"), self.value("AL")
        return None if rate is None or seconds is None else rate * seconds

    def flags(self, *names: str) -> Iterator[Flag]:
        """Those of the runs that belong to this stage or to none, each once."""
        return (
            flag for flag in flags_of(self.runs) if flag.name in names and flag.stage in (None, self.stage)
        )


def reasons(
    stage: str, differences: Mapping[str, Difference], a: Sequence[RunResult], b: Sequence[RunResult]
) -> tuple[str, ...]:
    """Why one side has the longer latency in a stage; nothing where neither has."""
    latency = differences.get("AL")
    if latency is None or latency.verdict not in ("better", "worse"):
        return ()
    slow, fast, name = _Seen(stage, a), _Seen(stage, b), "A"
    if latency.verdict == "better":
        slow, fast, name = fast, slow, "B"
    sentences = [sentence for explain in _EXPLANATIONS for sentence in explain(slow, fast)]
    return tuple(f"{name} is slower: {sentence}" for sentence in sentences)


def _fallbacks(slow: _Seen, _fast: _Seen) -> Iterator[str]:
    for flag in slow.flags(*FALLBACKS):
        yield flag.detail


def _more_work(slow: _Seen, fast: _Seen) -> Iterator[str]:
    more, less = slow.operations, fast.operations
    if more is not None and less is not None and less and more / less > 1 + GROWTH:
        yield f"it does {more / less:.2g} times the operations of the other ({more:.3g} and {less:.3g} FLOP)"


def _slower_work(slow: _Seen, fast: _Seen) -> Iterator[str]:
    rate, other = slow.value("FLOPS"), fast.value("FLOPS")
    if rate and other and other / rate > 1 + GROWTH:
        yield f"it does its operations at {rate / 1e9:.3g} GFLOP/s, the other at {other / 1e9:.3g}"


def _many_calls(slow: _Seen, fast: _Seen) -> Iterator[str]:
    calls, others = slow.facts.get("operator_calls"), fast.facts.get("operator_calls")
    if calls and others and calls / others > 1 + 2 * GROWTH:
        yield (
            f"a {'request' if slow.stage == 'infer' else 'step'} calls {calls:,} operators, the other's {others:,}: "
            "they are small, and each costs time to start"
        )


def _dequantization(slow: _Seen, _fast: _Seen) -> Iterator[str]:
    share = sum(part for name, part in slow.operators.items() if any(mark in name for mark in DEQUANTIZATION))
    if share > GROWTH:
        yield f"{share:.0%} of its operators' time goes into working with quantized weights"


def _operators(slow: _Seen, fast: _Seen) -> Iterator[str]:
    """Which operators take a larger part of the time than on the other side, the two that grew most."""
    if not fast.operators:
        return
    growth = {name: share - fast.operators.get(name, 0.0) for name, share in slow.operators.items()}
    for name, more in sorted(growth.items(), key=lambda item: item[1], reverse=True)[:2]:
        if more > GROWTH:
            here, there = slow.operators[name], fast.operators.get(name)
            beside = "is not among the other's main ones" if there is None else f"{there:.0%} of the other's"
            yield f"{name} takes {here:.0%} of its operators' time; it {'takes ' if there else ''}{beside}"


def _launches(slow: _Seen, _fast: _Seen) -> Iterator[str]:
    busy = slow.value("utilization")
    if busy is not None and busy < LAUNCH_BOUND and slow.device.startswith("cuda"):
        yield (
            f"the GPU ran a kernel in only {busy:.0%} of the time, so it waits for launches; a larger batch or "
            "torch.compile gives each launch more to do"
        )


def _memory(slow: _Seen, _fast: _Seen) -> Iterator[str]:
    """A batch that is too small: weights are read for few operations each."""
    rate, seconds, weights = slow.value("FLOPS"), slow.value("TPOT"), slow.facts.get("bytes")
    generated = slow.value("decode_tokens_per_second")
    if slow.stage != "infer" or not (rate and seconds and weights and generated):
        return
    batch = generated * seconds
    per_byte = 2 * slow.facts["parameters"] * batch / weights
    if per_byte < MEMORY_BOUND:
        yield (
            f"its decoding does about {per_byte:.2g} operations for each byte of weights that it reads, so it is bound "
            f"by memory; a batch above {batch:.2g} would share each read"
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
