"""Saved models of diffusers in 4 bits: read so by diffusers' own loader, they are what int4 makes of them in memory.

Without a GPU, only the loader's check for one is replaced; on a GPU, nothing is.
"""

from __future__ import annotations

from functools import partial

import bitsandbytes
import pytest
import torch

import eflm
from eflm.planning.stage_options import FinetuneOptions, InferOptions, PretrainOptions
from eflm.registry.contracts import WorkloadRequest
from eflm_plugins.adapters.lora import lora
from eflm_plugins.adapters.options import LoraOptions
from eflm_plugins.quantizers.int4 import int4
from eflm_plugins.quantizers.options import Int4Options
from eflm_plugins.saving.diffusers_models import load_transformer
from eflm_vision.hosts.diffusion import DiffusionHost
from eflm_vision.modalities.denoise import untimed
from eflm_vision.modalities.dit import DitModality
from eflm_vision.modalities.flow import Sd35Modality, Wan21Modality
from eflm_vision.modalities.options import DitOptions, FlowOptions
from support.absent import gpu_for_diffusers
from support.saved import save_dit, save_flow
from support.small_sets import small_digits

FEW = {"denoising_steps": 2, "eval_samples": 10}
FAMILIES = {
    "dit": (save_dit, partial(DitModality, DitOptions(**FEW))),
    "sd3.5": (partial(save_flow, "sd3.5"), partial(Sd35Modality, FlowOptions(**FEW))),
    "wan2.1": (
        partial(save_flow, "wan2.1"),
        partial(Wan21Modality, FlowOptions(resolution=16, frames=5, **FEW)),
    ),
}
STAGES = {
    "pretrain": PretrainOptions(batch_size=4),
    "finetune": FinetuneOptions(batch_size=4),
    "infer": InferOptions(batch_size=2),
}
needs_gpu = (
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch can use"),
)
DEVICES = ("cpu", pytest.param("cuda", marks=needs_gpu))


@pytest.fixture(autouse=True)
def few_digits():
    """Use a hundred digits in this process. Runs in other processes use all of them."""
    with small_digits():
        yield


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def saved(family, tmp_path):
    """The folder of a whole pipeline. Its transformer is not the identity that new ones are."""
    FAMILIES[family][0](tmp_path / "saved")
    transformer = load_transformer(tmp_path / "saved" / "transformer", DiffusionHost())
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    transformer.save_pretrained(tmp_path / "saved" / "transformer")
    return tmp_path / "saved"


def workload_of(family, saved, device):
    request = WorkloadRequest(model=str(saved), data=None, stages=STAGES, seed=0, device=device)
    return FAMILIES[family][1]().prepare(request)


def in_4_bits(workload, device, *, at_load):
    """The model by either way, as a run would go about it."""
    # Of one dtype throughout, so that both ways compute alike.
    quantizer, keywords = int4(Int4Options(compute_dtype="fp32")), {}
    if at_load:
        keywords = {**quantizer.load_kwargs("cuda"), "device_map": {"": torch.device(device)}}
    with gpu_for_diffusers():
        model = workload.build_model(from_scratch=False, load_kwargs=keywords).to(device)
    assert getattr(model, "is_loaded_in_4bit", False) == at_load
    return quantizer.apply(model, workload.host.targets(model), device).eval()


def packed(model):
    return {
        name: m.weight.data for name, m in model.named_modules() if isinstance(m, bitsandbytes.nn.Linear4bit)
    }


@pytest.mark.parametrize("device", DEVICES)
def test_both_ways_lead_to_one_model_that_generates_and_learns(family, saved, device):
    workload = workload_of(family, saved, device)
    models = [in_4_bits(workload, device, at_load=at_load) for at_load in (True, False)]
    read, made = map(packed, models)
    assert set(read) == set(made) == set(workload.host.targets(models[1]).linears)
    assert all(torch.equal(read[name], made[name]) for name in read)

    batch, request = next(workload.batches("finetune")), next(workload.requests())
    with torch.no_grad():
        pictures = [workload.generate(model, request, untimed).outputs for model in models]
        torch.testing.assert_close(*pictures)
        torch.testing.assert_close(*(workload.loss(model, batch) for model in models))
        dense = workload.build_model(from_scratch=False, load_kwargs={}).to(device).eval()
        assert not torch.allclose(workload.generate(dense, request, untimed).outputs, pictures[0])

    gradients = []
    for model in models:
        torch.manual_seed(1)
        adapted = lora(LoraOptions(r=2)).apply(model, workload.host.targets(model)).to(device).train()
        workload.loss(adapted, batch).backward()
        gradients.append({name: p.grad for name, p in adapted.named_parameters() if p.requires_grad})
    assert any(gradient.abs().sum() > 0 for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name])


@pytest.mark.parametrize(
    ("family", "device"),
    [
        pytest.param("sd3.5", "cpu", marks=pytest.mark.slow),
        pytest.param("dit", "cpu", marks=pytest.mark.slow),
        pytest.param("wan2.1", "cpu", marks=pytest.mark.slow),
        *(pytest.param(family, "cuda", marks=needs_gpu) for family in FAMILIES),
    ],
    indirect=["family"],
)
def test_a_folder_runs_in_4_bits_on_whatever_there_is(family, saved, device):
    """As `eflm bench --model FOLDER --quant int4 --device DEVICE`, with `--peft lora` where a modality fine-tunes."""
    stages = ["infer"] if family == "dit" else ["finetune", "infer"]
    shape = {"wan2.1.resolution": 16, "wan2.1.frames": 5} if family == "wan2.1" else {}
    result = eflm.bench(
        model=str(saved),
        quant="int4",
        peft="lora" if "finetune" in stages else None,
        device=device,
        stages=stages,
        settings={
            **({"finetune.steps": 2} if "finetune" in stages else {}),
            "infer.requests": 2,
            "infer.seconds": 0,
            **{f"{family}.{name}": value for name, value in FEW.items()},
            **shape,
        },
    )
    assert result.status == "ok", result.reason
    assert result.stages["infer"].metrics["AL"].value > 0
    if device == "cpu":
        # The whole model was packed in a step of its own.
        assert result.facts["quantize"]["bytes"] < result.facts["quantize"]["bytes_before"]
        assert result.stages["infer"].metrics["MCR"].value > 1
    else:
        assert "quantize" not in result.facts  # the weights were packed while they were read
