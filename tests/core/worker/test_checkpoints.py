"""Checkpoints hold a model's tensors: what was written is what is read, in a model that had no values before."""

from __future__ import annotations

import resource
import sys

import psutil
import pytest
import torch
from accelerate import init_empty_weights
from torch import nn

from eflm import load_plugins
from eflm.errors import EflmError, ModelError
from eflm.planning.compose import compose
from eflm.worker import assemble, checkpoints, memory
from eflm.worker.model import stored_bytes
from eflm.worker.techniques import Build, quantize
from eflm_schemas import RunSpec
from support.decoders import tiny


class Model(nn.Module):
    """Two tied weights, parameters of two widths, a buffer that is saved and one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(6, 4)
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.embedding.weight
        self.projection = nn.Linear(4, 4).to(torch.bfloat16)
        self.register_buffer("count", torch.tensor([3.0, 4.0]))
        self.register_buffer("computed", torch.ones(2), persistent=False)


@pytest.fixture
def model() -> Model:
    torch.manual_seed(1)
    return Model()


def assert_same(one: nn.Module, other: nn.Module) -> None:
    """Check that names, widths and values of all saved tensors are equal."""
    first, second = one.state_dict(), other.state_dict()
    assert list(first) == list(second)
    for name, tensor in first.items():
        assert second[name].dtype == tensor.dtype
        assert torch.equal(second[name], tensor), name


@pytest.mark.parametrize("outline", [False, True])
def test_what_was_written_is_read(model, tmp_path, outline):
    model.count += 1
    checkpoints.write(model, tmp_path / "one")
    torch.manual_seed(2)
    with init_empty_weights(include_buffers=False) if outline else torch.random.fork_rng():
        other = Model()
    if outline:
        other.head.weight = other.embedding.weight
    checkpoints.read(other, tmp_path / "one")
    assert_same(model, other)
    assert other.head.weight is other.embedding.weight
    assert torch.equal(other.computed, model.computed)


def test_a_tied_weight_is_stored_once(model, tmp_path):
    checkpoints.write(model, tmp_path)
    (file,) = tmp_path.iterdir()
    values = 4 * 6 * 4 + 2 * (16 + 4) + 4 * 2
    assert values < file.stat().st_size < values + 1000
    found = checkpoints.tensors(tmp_path)
    assert found["head.weight"] is found["embedding.weight"]


def test_only_what_changed_since_a_snapshot_is_written(model, tmp_path):
    model.requires_grad_(False)
    before = checkpoints.Snapshot(model)
    model.add_module("adapter", nn.Linear(4, 2))  # new
    model.projection.bias.requires_grad_(True)  # trained
    with torch.no_grad():
        model.count.add_(1)  # written to
        model.embedding.weight.mul_(1.0)
    checkpoints.write(model, tmp_path, since=before)
    assert set(checkpoints.tensors(tmp_path)) == {
        "adapter.weight", "adapter.bias", "projection.bias", "count", "embedding.weight", "head.weight",
    }  # fmt: skip


def test_a_partial_checkpoint_changes_only_its_own_tensors(model, tmp_path):
    model.requires_grad_(False)
    before = checkpoints.Snapshot(model)
    model.projection.bias = nn.Parameter(torch.full((4,), 7.0, dtype=torch.bfloat16))
    checkpoints.write(model, tmp_path, since=before)
    torch.manual_seed(2)
    other = Model()
    expected = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    checkpoints.read(other, tmp_path, partial=True)
    expected["projection.bias"] = model.projection.bias.detach()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in other.state_dict().items())
    with pytest.raises(ModelError, match=r"projection\.weight"):
        checkpoints.read(Model(), tmp_path)


def test_a_checkpoint_that_does_not_fit_is_refused(model, tmp_path):
    checkpoints.write(model, tmp_path / "whole")
    with pytest.raises(ModelError, match=r"embedding\.weight"):
        checkpoints.read(nn.Sequential(nn.Linear(4, 4)), tmp_path / "whole")
    checkpoints.write(nn.Sequential(nn.Linear(4, 4)), tmp_path / "other")
    with pytest.raises(ModelError, match=r"0\.weight"):
        checkpoints.read(model, tmp_path / "other")
    wider = Model()
    wider.projection = nn.Linear(4, 5)
    with pytest.raises(ModelError, match=str(tmp_path / "whole")):
        checkpoints.read(wider, tmp_path / "whole")


def test_a_full_disk_is_an_error_that_leaves_no_checkpoint(model, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))  # as if the disk had 64 bytes left
    try:
        with pytest.raises(EflmError, match=str(tmp_path / "one")):
            checkpoints.write(model, tmp_path / "one")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((tmp_path / "one").glob("*.safetensors"))


# --- models of a plan ---------------------------------------------------------------------------------


def prepared(**techniques: str) -> Build:
    """Return the build of a nano model with these techniques."""
    settings = {"llm.eval_tokens": 256}
    spec = RunSpec(
        stages=("pretrain", "finetune", "infer"), techniques=techniques, settings=settings, device="cpu"
    )
    plan = compose(spec, load_plugins())
    return Build(plan=plan, workload=assemble.prepare(plan))


def test_an_outline_has_no_real_parameters_and_computes_its_buffers():
    outline = assemble.outline(prepared(attention="nsa", moe="topk"))
    assert all(parameter.is_meta for parameter in outline.parameters())
    assert not any(buffer.is_meta for buffer in outline.buffers())
    kinds = {type(module).__name__ for module in outline.modules()}
    assert "NativeSparseAttention" in kinds


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(torch.arange(3, 20).reshape(1, -1)).logits


def test_a_trained_model_with_an_adapter_goes_through_the_checkpoints_of_its_chain(tmp_path):
    build = prepared(attention="mla", moe="topk", peft="lora")
    trained = assemble.base_model(build)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    checkpoints.write(trained, tmp_path / "pretrain")

    base = assemble.assemble(build, "finetune", {"pretrain": tmp_path / "pretrain"}, adapted=False)
    torch.testing.assert_close(logits(base), logits(trained), rtol=0, atol=0)
    before = checkpoints.Snapshot(base)
    adapted = assemble.adapt(build, "finetune", base)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    checkpoints.write(adapted, tmp_path / "finetune", since=before)
    assert all("lora_" in name for name in checkpoints.tensors(tmp_path / "finetune"))

    restore = {name: tmp_path / name for name in ("pretrain", "finetune")}
    served = assemble.assemble(prepared(attention="mla", moe="topk", peft="lora"), "infer", restore)
    torch.testing.assert_close(logits(served), logits(adapted), rtol=0, atol=0)
    assert not torch.equal(logits(served), logits(trained))


@pytest.mark.parametrize("quantizer", ["bf16", "int4"])
def test_packed_weights_are_read_back_as_they_were(tmp_path, quantizer):
    if quantizer == "int4":
        pytest.importorskip("bitsandbytes")
    build = prepared(attention="nsa", quant=quantizer, peft="lora")
    chosen = build.plan.compressor
    packed = quantize(build, chosen, assemble.base_model(build))
    checkpoints.write(packed, tmp_path)
    again = prepared(attention="nsa", quant=quantizer, peft="lora")
    read = assemble.assemble(again, "infer", {"quantize": tmp_path}, adapted=False)
    torch.testing.assert_close(logits(read), logits(packed), rtol=0, atol=0)
    assert {type(module) for module in read.modules()} == {type(module) for module in packed.modules()}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has this high-water mark")
def test_reading_packed_weights_never_holds_the_full_precision_model(tmp_path):
    large = {
        "num_hidden_layers": 2,
        "hidden_size": 1024,
        "intermediate_size": 6144,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "vocab_size": 512,
    }
    tiny("llama", **large).save_pretrained(tmp_path / "model")
    spec = RunSpec(
        model=str(tmp_path / "model"),
        stages=("infer",),
        techniques={"attention": "mqa", "quant": "bf16"},
        settings={"llm.eval_tokens": 256},
        device="cpu",
    )
    plan = compose(spec, load_plugins())
    build = Build(plan=plan, workload=assemble.prepare(plan))
    full = assemble.base_model(build)
    size = stored_bytes(full)
    assert size > 150e6
    packed = quantize(build, plan.compressor, full)
    checkpoints.write(packed, tmp_path / "packed")
    expected = logits(packed)
    del full, packed
    memory.release_memory("cpu")

    resting = psutil.Process().memory_info().rss
    memory.reset_peaks("cpu")
    read = assemble.assemble(build, "infer", {"quantize": tmp_path / "packed"})
    peak = memory.peaks("cpu")["peak_resident_bytes"] - resting
    # The file is mapped while its tensors are copied: twice the packed size, which here is the size of the full model.
    # With the full model in memory as well it would be one and a half times that.
    assert peak < 1.2 * size
    torch.testing.assert_close(logits(read), expected, rtol=0, atol=0)
