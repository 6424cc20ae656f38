"""The answer: one sentence per side, made only of differences that are larger than the noise."""

from __future__ import annotations

from eflm.registry.discovery import load_plugins
from eflm_analysis.compare.comparison import compare
from eflm_schemas import Metric
from support.results import result, timed

CARDS = load_plugins().cards("metric")


def counted(value: float) -> Metric:
    return Metric(value=value, unit="GB", provenance="counted")


def perplexity(value: float) -> Metric:
    interval = (value * 0.99, value * 1.01)
    return Metric(value=value, unit="perplexity per token", provenance="evaluated", n=99, ci95=interval)


def run(name: str | None, **stages: dict[str, Metric]):
    return result(f"{name}", techniques={"quant": name} if name else {}, stages=stages)


def answer(*runs) -> tuple[str, ...]:
    return compare([[run] for run in runs], CARDS).answer


FP32 = {
    "AL": timed(1.0),
    "decode_tokens_per_second": timed(240.0, "tokens/s"),
    "memory_weights": counted(3.2),
    "PPL": perplexity(100),
}
INT4 = {
    "AL": timed(2.4),
    "decode_tokens_per_second": timed(100.0, "tokens/s"),
    "memory_weights": counted(1.0),
    "PPL": perplexity(133),
}


def test_speed_size_and_quality_are_one_sentence():
    assert answer(run("fp32", infer=FP32), run("int4", infer=INT4)) == (
        "fp32 decodes 2.4 × faster than int4; int4's weights are 3.2 × smaller; perplexity +33%",
    )


def test_the_change_of_quality_names_the_side_if_the_last_clause_is_about_the_baseline():
    (sentence,) = answer(run("int4", infer=INT4), run("fp32", infer=FP32))
    assert sentence.endswith("int4's weights are 3.2 × smaller; fp32's perplexity -25%")


def test_ties_are_not_mentioned():
    same_speed = {**INT4, "decode_tokens_per_second": timed(245.0, "tokens/s"), "AL": timed(1.02)}
    (sentence,) = answer(run("fp32", infer=FP32), run("int4", infer=same_speed))
    assert "faster" not in sentence
    assert sentence.startswith("int4's weights")


def test_latency_is_mentioned_if_the_decode_rate_ties():
    slow_prefill = {**FP32, "AL": timed(3.0)}
    assert answer(run("fp32", infer=FP32), run("int8", infer=slow_prefill)) == (
        "fp32 runs inference 3.0 × faster than int8",
    )


def test_only_ties_are_said_to_be_ties():
    (sentence,) = answer(run("fp32", infer=FP32), run("int4", infer=FP32))
    assert "tie" in sentence
    assert "faster" not in sentence


def test_sides_without_a_common_metric_cannot_be_compared():
    (sentence,) = answer(
        run("fp32", infer={"AL": timed(1.0)}), run("int4", infer={"AL": Metric.unavailable("s", "no")})
    )
    assert "no metric" in sentence


def test_small_differences_are_percentages():
    close = {"memory_weights": counted(3.04)}
    assert answer(run("fp32", infer=FP32), run("bf16", infer=close)) == ("bf16's weights are 5.0% smaller",)


def test_training_and_other_metrics_are_mentioned():
    a, b = run(None, pretrain={"AL": timed(1.0)}), run("int4", pretrain={"AL": timed(0.5)})
    assert answer(a, b) == ("int4 pretrains 2.0 × faster than baseline",)
    a, b = run(None, infer={"memory_cache": counted(1.0)}), run("int4", infer={"memory_cache": counted(0.5)})
    (sentence,) = answer(a, b)
    assert "0.5 ×" in sentence
