"""A quantized run packs the weights in a worker of its own, and is compared with the same chain without quantizer."""

from __future__ import annotations

import pytest
from attrs import evolve

from eflm import load_plugins
from eflm.controller import run as module
from eflm.controller.run import run
from eflm.controller.run_options import RunOptions
from eflm.planning.compose import compose
from eflm.planning.keys import chain, without_quantizer
from eflm.results import stages as saved
from eflm_schemas import RunSpec

SETTINGS = {
    "pretrain.steps": 1,
    "pretrain.warmup_steps": 0,
    "pretrain.batch_size": 1,
    "pretrain.sequence_length": 32,
    "infer.requests": 1,
    "infer.seconds": 0,
    "infer.warmup_requests": 0,
    "infer.prompt_tokens": 8,
    "infer.new_tokens": 2,
    "llm.eval_tokens": 256,
}


@pytest.fixture
def steps(monkeypatch):
    """Record the orders of all workers that a run starts."""
    orders = []

    def recorded(plan, order, *arguments, **keywords):
        orders.append(order)
        return run_step(plan, order, *arguments, **keywords)

    run_step = module.run_step
    monkeypatch.setattr(module, "run_step", recorded)
    return orders


def planned(*stages: str, quant: str, **settings: object):
    own = {**SETTINGS, **{name.replace("__", "."): value for name, value in settings.items()}}
    used = {name: value for name, value in own.items() if name.split(".")[0] in ("llm", *stages)}
    spec = RunSpec(
        stages=stages, techniques={"quant": quant}, settings=used, device="cpu", isolation="forkserver"
    )
    return compose(spec, load_plugins())


@pytest.mark.parametrize("quant", ["bf16", pytest.param("int4", marks=pytest.mark.slow)])
def test_weights_are_packed_in_their_own_worker_and_the_reference_is_evaluated_once(tmp_path, steps, quant):
    if quant == "int4":
        pytest.importorskip("bitsandbytes")
    options = RunOptions(results=tmp_path)
    plan = planned("pretrain", "infer", quant=quant)
    result = run(plan, load_plugins(), options)
    assert result.status == "ok", result.reason
    assert sorted(order.step for order in steps) == ["infer", "pretrain", "quantize", "reference"]
    orders = {order.step: order for order in steps}
    assert [restore.step for restore in orders["quantize"].restore] == ["pretrain"]
    assert "quantize" in [restore.step for restore in orders["infer"].restore]
    assert [restore.step for restore in orders["reference"].restore] == ["pretrain"]

    facts = result.facts["quantize"]
    assert facts["bytes"] < facts["bytes_before"]
    assert result.facts["infer"]["bytes"] == facts["bytes"]
    # MCR and the change of quality refer to the model before quantization.
    reference = chain(without_quantizer(plan)).links[-1]
    found = saved.find_quality(tmp_path, reference.checkpoint)
    assert found.original_bytes == facts["bytes_before"]
    assert found.original_quality["PPL"].value > 1
    assert result.stages["infer"].metrics["MCR"].value > 1

    # Another measurement of the same model: nothing is trained, and the reference is found by its key.
    steps.clear()
    again = run(planned("pretrain", "infer", quant=quant, infer__requests=2), load_plugins(), options)
    assert again.status == "ok", again.reason
    assert "reference" not in [order.step for order in steps]
    assert again.stages["infer"].metrics["MCR"].value == result.stages["infer"].metrics["MCR"].value

    # A run without the quantizer evaluates the same model, so it would have found its own key.
    plain = without_quantizer(plan)
    assert chain(plain).links[-1].checkpoint == reference.checkpoint
    # With everything finished, --reuse starts no worker, not even to pack.
    steps.clear()
    reused = run(plan, load_plugins(), evolve(options, reuse=True))
    assert [stage.reused is not None for stage in reused.stages.values()] == [True, True]
    assert steps == []
    assert reused.facts["quantize"] == facts
    assert reused.facts["openmp"] == result.facts["openmp"]


def test_a_reference_that_cannot_be_evaluated_costs_only_the_comparison(tmp_path, monkeypatch):
    def failing(plan, order, *arguments, **keywords):
        if order.step == "reference":
            order = evolve(order, step="unknown")
        return run_step(plan, order, *arguments, **keywords)

    run_step = module.run_step
    monkeypatch.setattr(module, "run_step", failing)
    result = run(planned("infer", quant="bf16"), load_plugins(), RunOptions(results=tmp_path))
    assert result.status == "ok", result.reason
    metrics = result.stages["infer"].metrics
    assert metrics["AL"].value > 0
    assert metrics["MCR"].value is None
    assert "unknown" in metrics["MCR"].reason
