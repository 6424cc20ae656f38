"""On an NVIDIA GPU: the device is found, and its memory and energy are read."""

from __future__ import annotations

import pytest
import torch

import eflm

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch can use"),
]

QUICK = {"pretrain.steps": 10, "finetune.steps": 5, "infer.requests": 5}


@pytest.mark.parametrize("attention", ["gqa", "mla", "nsa"])
def test_auto_runs_on_the_gpu_and_measures_it(attention):
    result = eflm.bench(attention=attention, peft="lora", quant="bf16", settings=QUICK)
    assert result.status == "ok", result.reason
    assert result.environment.device.startswith("cuda")
    for stage in result.stages.values():
        assert stage.metrics["AMU"].value > 0
        assert 0 < stage.metrics["PCU"].value < 1
        assert stage.metrics["AEC"].provenance in ("counter", "sampled")
        assert stage.metrics["AEC"].value > 1


def test_four_bits_on_the_gpu():
    result = eflm.bench(peft="lora", quant="int4", settings=QUICK)
    assert result.status == "ok", result.reason
    assert result.stages["infer"].metrics["MCR"].value > 1


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two NVIDIA GPUs")
def test_two_processes_train_on_a_gpu_each():
    result = eflm.bench(stages=("pretrain",), device="cuda", processes=2, settings={"pretrain.steps": 10})
    assert result.status == "ok", result.reason
    metrics = result.stages["pretrain"].metrics
    assert 0 < metrics["communication_exposed"].value <= metrics["communication_time"].value
    assert metrics["communication_time"].value < metrics["AL"].value
    assert "2 GPUs" in result.facts["pretrain"]["peak_flops_source"]
