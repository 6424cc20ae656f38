"""Vision workloads save folders that diffusers or transformers load, and build saved models without their weights."""

from __future__ import annotations

import json
from pathlib import Path

import bitsandbytes
import diffusers
import pytest
import torch
from accelerate import init_empty_weights
from diffusers import DiTPipeline, DiTTransformer2DModel, StableDiffusion3Pipeline, WanPipeline
from peft import PeftModel
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

from eflm.planning.stage_options import FinetuneOptions, InferOptions, PretrainOptions
from eflm.registry.contracts import HasOutline, SavesModel, WorkloadRequest
from eflm_plugins.adapters.lora import lora
from eflm_plugins.adapters.options import LoraOptions
from eflm_plugins.quantizers.int4 import int4
from eflm_plugins.quantizers.options import Int4Options
from eflm_vision.modalities.dit import DitModality
from eflm_vision.modalities.flow import Sd35Modality, Wan21Modality
from eflm_vision.modalities.options import DitOptions, FlowOptions, QwenVlOptions
from eflm_vision.modalities.qwen25vl import QwenVlModality
from support.absent import gpu_for_diffusers
from support.decoders import card_of, options_of, recipe_of
from support.saved import save_dit, save_flow, save_vl

STAGES = {
    "pretrain": PretrainOptions(batch_size=2),
    "finetune": FinetuneOptions(batch_size=2),
    "infer": InferOptions(batch_size=1),
}
FLOWS = {"sd3.5": (Sd35Modality, StableDiffusion3Pipeline), "wan2.1": (Wan21Modality, WanPipeline)}
#: The others are saved in the same way and take minutes.
FAMILIES = ("dit", *(pytest.param(name, marks=pytest.mark.slow) for name in (*FLOWS, "qwen2.5-vl")))


def workload_of(family: str, model: Path | str):
    """The workload of a saved model or a preset."""
    request = WorkloadRequest(model=str(model), data=None, stages=STAGES, seed=0, device="cpu")
    if family == "dit":
        return DitModality(DitOptions()).prepare(request)
    if family == "qwen2.5-vl":
        return QwenVlModality(QwenVlOptions()).prepare(request)
    return FLOWS[family][0](FlowOptions(resolution=16, frames=5)).prepare(request)


@pytest.fixture(scope="module", params=FAMILIES)
def workload(request, tmp_path_factory):
    """The workload of a tiny saved model of each family, with the name of the family."""
    folder = tmp_path_factory.mktemp("saved")
    if request.param == "dit":
        save_dit(folder)
    elif request.param == "qwen2.5-vl":
        save_vl(folder)
    else:
        save_flow(request.param, folder)
    found = workload_of(request.param, folder)
    found.family = request.param
    return found


def with_attention(workload, model, name="mla"):
    """Insert an attention that needs a plugin, with random weights."""
    torch.manual_seed(1)
    factory, options = card_of(name).factory.resolve(), options_of(name)
    workload.host.replace_attention(
        model, lambda geometry: factory(geometry, options), convert=False, recipe=recipe_of(name)
    )
    return model


def trained(workload):
    return workload.build_model(from_scratch=False, load_kwargs={}).eval()


def loss_of(workload, model) -> float:
    """The loss of one batch, the same for equal models."""
    with torch.no_grad():
        return float(workload.loss(model, next(workload.batches("finetune"))))


def load_with_library(family: str, folder: Path):
    """The model of the folder, as the library of its family loads it."""
    if family == "qwen2.5-vl":
        AutoTokenizer.from_pretrained(folder)
        AutoImageProcessor.from_pretrained(folder, backend="pil")
        return AutoModelForImageTextToText.from_pretrained(folder).eval()
    pipeline = DiTPipeline if family == "dit" else FLOWS[family][1]
    return pipeline.from_pretrained(folder).transformer.eval()


def test_the_library_loads_what_a_workload_saves(workload, tmp_path):
    assert isinstance(workload, SavesModel)
    model = trained(workload)
    torch.nn.init.normal_(next(model.parameters()))
    workload.save(model, str(tmp_path))
    assert loss_of(workload, load_with_library(workload.family, tmp_path)) == loss_of(workload, model)


def test_an_adapter_is_saved_with_its_model(workload, tmp_path):
    model = trained(workload)
    adapted = lora(LoraOptions()).apply(model, workload.host.targets(model)).eval()
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    expected = loss_of(workload, adapted)
    workload.save(adapted, str(tmp_path))
    assert loss_of(workload, load_with_library(workload.family, tmp_path)) == pytest.approx(
        expected, rel=1e-4
    )
    assert loss_of(workload, adapted) == pytest.approx(expected, rel=1e-4), "saving changed the model"


def test_eflm_loads_a_saved_model_with_techniques_and_refuses_it_without_eflm(workload, tmp_path):
    model = with_attention(workload, trained(workload)).eval()
    workload.save(model, str(tmp_path))
    again = workload_of(workload.family, tmp_path)
    assert loss_of(again, trained(again)) == pytest.approx(loss_of(workload, model), rel=1e-5)
    with pytest.raises((ValueError, AttributeError, OSError), match=r"eflm|Eflm"):
        load_with_library(workload.family, tmp_path)


@pytest.mark.parametrize("techniques", [False, True], ids=["plain", "mla"])
def test_an_outline_has_the_shape_of_the_model_and_its_buffers_but_no_weights(workload, techniques, tmp_path):
    found = workload
    if techniques:
        workload.save(with_attention(workload, trained(workload)), str(tmp_path))
        found = workload_of(workload.family, tmp_path)
    assert isinstance(found, HasOutline)
    model = trained(found)
    with init_empty_weights(include_buffers=False):
        outline = found.outline()
    assert all(parameter.is_meta for parameter in outline.parameters())
    # On the meta device, each name of a tied weight has a parameter of its own.
    shapes = {name: (p.shape, p.dtype) for name, p in model.named_parameters(remove_duplicate=False)}
    assert {name: (p.shape, p.dtype) for name, p in outline.named_parameters()} == shapes
    buffers = dict(outline.named_buffers())
    for name, buffer in model.named_buffers():
        assert torch.equal(buffers[name], buffer), name


@pytest.mark.parametrize("adapted", [False, True], ids=["plain", "lora"])
def test_a_four_bit_model_is_saved_in_the_format_of_its_library(workload, adapted, tmp_path):
    model = trained(workload)
    # One dtype throughout, so that the loaded model computes in the same one.
    model = int4(Int4Options(compute_dtype="fp32")).apply(model, workload.host.targets(model), "cpu").eval()
    if adapted:
        model = lora(LoraOptions()).apply(model, workload.host.targets(model)).eval()
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    workload.save(model, str(tmp_path))
    if workload.family == "qwen2.5-vl":
        loaded = load_with_library(workload.family, tmp_path)
    else:
        kind = getattr(
            diffusers, json.loads((tmp_path / "transformer/config.json").read_text())["_class_name"]
        )
        place = {"device_map": {"": torch.device("cpu")}, "torch_dtype": torch.float32}
        with gpu_for_diffusers():  # diffusers loads 4 bits on GPUs only
            loaded = kind.from_pretrained(tmp_path / "transformer", **place).eval()
        if adapted:
            loaded = PeftModel.from_pretrained(loaded, str(tmp_path / "transformer")).eval()
    assert packed(loaded)
    assert len(packed(loaded)) == len(packed(model))
    assert loss_of(workload, loaded) == pytest.approx(loss_of(workload, model), rel=1e-4)


def packed(model) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]


def test_a_preset_that_works_on_pixels_is_saved_as_a_transformer_and_a_scheduler(tmp_path):
    workload = workload_of("dit", "dit-nano")
    model = workload.build_model(from_scratch=True, load_kwargs={}).eval()
    workload.save(model, str(tmp_path))
    assert (tmp_path / "scheduler" / "scheduler_config.json").is_file()
    loaded = DiTTransformer2DModel.from_pretrained(tmp_path).eval()
    assert loss_of(workload, loaded) == loss_of(workload, model)
    again = workload_of("dit", tmp_path)
    assert loss_of(again, trained(again)) == loss_of(workload, model)
