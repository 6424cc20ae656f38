"""A stage whose latency is less certain than --target-ci asks for is flagged."""

from __future__ import annotations

from eflm.controller.target_ci import target_ci_flags
from eflm.protocol.record import Hardware, StageRecord, Window

HARDWARE = Hardware(
    device="cpu", dtype="float32", peak_flops=None, peak_source="", memory_bytes=1, energy_source=None
)


def record(stage: str, seconds: list[float]) -> StageRecord:
    """Return a record with one window of each duration, after one warm-up window of 100 s."""
    name = "request" if stage == "infer" else "step"
    windows = [Window(name=name, begin=0, end=100 * 10**9, warmup=True)]
    windows += [Window(name=name, begin=0, end=round(duration * 1e9)) for duration in seconds]
    return StageRecord(stage=stage, windows=tuple(windows), samples=(), model=None, hardware=HARDWARE)


def test_a_wide_interval_is_flagged_with_the_option_that_helps():
    (flag,) = target_ci_flags(record("pretrain", [1.0, 1.2, 1.0, 1.2]), 0.01)
    assert (flag.name, flag.stage) == ("imprecise", "pretrain")
    assert "±1.0%" in flag.detail
    assert "--set pretrain.steps=" in flag.detail
    (flag,) = target_ci_flags(record("infer", [1.0, 1.2, 1.0, 1.2]), 0.01)
    assert "--set infer.seconds=" in flag.detail


def test_a_narrow_interval_is_not_flagged():
    assert target_ci_flags(record("pretrain", [1.0, 1.01, 1.0, 1.01]), 0.03) == []


def test_one_window_has_an_unknown_spread():
    (flag,) = target_ci_flags(record("pretrain", [1.0]), 1.0)
    assert flag.name == "imprecise"
    assert target_ci_flags(record("pretrain", []), 1.0) == []
