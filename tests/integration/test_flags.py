"""Conditions that a reader of a result must know are flags in it."""

from __future__ import annotations

import pytest

import eflm

QUICK = {
    "infer.requests": 1,
    "infer.seconds": 0,
    "infer.prompt_tokens": 16,
    "infer.new_tokens": 4,
    "llm.eval_tokens": 512,
}


def flags_of(quant: str) -> set[str]:
    result = eflm.bench(peft="lora", quant=quant, stages=["infer"], settings=QUICK)
    assert result.status == "ok", result.reason
    return {flag.name for flag in result.flags}


@pytest.mark.slow
def test_an_adapter_that_cannot_be_merged_is_flagged():
    assert "not_merged" in flags_of("int4")
    assert "not_merged" not in flags_of("bf16")


def test_a_backend_other_than_the_requested_one_is_flagged():
    result = eflm.bench(
        attention="nsa",
        stages=["infer"],
        settings={**QUICK, "infer.prompt_tokens": 100, "nsa.backend": "fla"},
    )
    assert result.status == "ok", result.reason
    assert result.facts["infer"]["backends"] == {"attention/nsa": ["dispatch", "gather"]}
    (flag,) = [flag for flag in result.flags if flag.name == "backend_fallback"]
    assert flag.stage == "infer"
    assert "CUDA" in flag.detail
