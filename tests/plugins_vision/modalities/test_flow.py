"""Stable Diffusion 3.5 and Wan 2.1: training data, quality, and saved pipelines compared with diffusers."""

from __future__ import annotations

import io
import shutil
from contextlib import contextmanager

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline, WanPipeline
from PIL import Image

import eflm
from eflm import ModelError, UsageError
from eflm.planning.stage_options import FinetuneOptions, InferOptions, PretrainOptions
from eflm.registry.contracts import WorkloadRequest
from eflm_plugins.adapters.lora import lora
from eflm_plugins.adapters.options import LoraOptions
from eflm_plugins.saving.diffusers_models import load_transformer
from eflm_vision.data import photos
from eflm_vision.data.captioned import MOVES, captioned, moving
from eflm_vision.data.digits import load as all_digits
from eflm_vision.hosts.diffusion import DiffusionHost
from eflm_vision.modalities import autoencoders
from eflm_vision.modalities.flow import Sd35Modality, Wan21Modality
from eflm_vision.modalities.options import FlowOptions
from support.saved import save_flow
from support.small_sets import small_digits

MODALITIES = {"sd3.5": Sd35Modality, "wan2.1": Wan21Modality}
STAGES = {
    "pretrain": PretrainOptions(batch_size=4),
    "finetune": FinetuneOptions(batch_size=4),
    "infer": InferOptions(batch_size=3),
}


@pytest.fixture(autouse=True, scope="module")
def quick(tmp_path_factory):
    """Use a hundred digits, train autoencoders for three steps only, and share their cache in this file."""
    with pytest.MonkeyPatch.context() as patch, small_digits():
        patch.setattr(autoencoders, "STEPS", 3)
        patch.setattr(autoencoders, "BATCH_SIZE", 4)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "flow-cache"))
        yield


@pytest.fixture(params=MODALITIES, scope="module")
def family(request):
    return request.param


#: Both families, for tests that take about one second for images and ten for clips; the latter is marked as slow.
CLIPS_ARE_SLOW = pytest.mark.parametrize(
    "family", ["sd3.5", pytest.param("wan2.1", marks=pytest.mark.slow)], indirect=True
)


def workload_of(family, model=None, seed=0, stages=STAGES, data=None, **options):
    request = WorkloadRequest(
        model=model or f"{family}-nano", data=data, stages=stages, seed=seed, device="cpu"
    )
    options = {"denoising_steps": 2, "guidance_scale": 2.0, "eval_samples": 10} | options
    return MODALITIES[family](FlowOptions(**options)).prepare(request)


@pytest.fixture(scope="module")
def workload(family):
    """The workload of a preset, for tests that do not change it."""
    return workload_of(family)


def model_of(workload):
    return workload.build_model(from_scratch=True, load_kwargs={}).eval()


class Windows:
    """A `Phase` that records the opened windows."""

    def __init__(self):
        self.names = []

    @contextmanager
    def __call__(self, name, *, tokens=0, samples=0):
        self.names.append(name)
        yield


def test_digits_are_captioned_and_move():
    still = captioned(all_digits())
    assert still.captions[7] == "the digit seven"
    clips = moving(all_digits(), 16, 4)
    assert clips.pixels.shape == (1797, 4, 1, 16, 16)
    assert len(clips.captions) == 40
    for row in range(30):
        direction = clips.captions[clips.labels[row]].rpartition(" ")[2]
        before, after = clips.pixels[row, :2]
        assert torch.equal(before.roll(MOVES[direction], dims=(1, 2)), after)
        assert clips.subjects[clips.labels[row]] == still.labels[row]
    negative = clips.negative()
    assert torch.equal(negative.pixels, -clips.pixels)
    assert negative.frames().labels.shape == (1797 * 4,)


def test_the_judge_gets_two_frames_of_each_clip():
    clips = moving(all_digits(), 16, 5)
    pairs = clips.two_frames_each()
    assert len(pairs) == 2 * len(clips)
    for row, (first, second) in enumerate([(0, 2), (1, 3), (2, 4), (3, 0), (4, 1), (0, 2)]):
        assert torch.equal(pairs.pixels[2 * row : 2 * row + 2], clips.pixels[row, [first, second]])
        assert pairs.labels[2 * row] == pairs.labels[2 * row + 1] == all_digits().labels[row]


@CLIPS_ARE_SLOW
def test_the_same_seed_gives_the_same_batches(family):
    first, again, other = (
        next(workload_of(family, seed=seed).batches("pretrain")).inputs for seed in (0, 0, 1)
    )
    for name in first:
        assert torch.equal(first[name], again[name])
    assert not torch.equal(first["hidden_states"], other["hidden_states"])


def test_the_velocity_points_from_data_to_noise(family, workload):
    batch = next(workload.batches("pretrain"))
    sigma = batch.inputs["timestep"].view(-1, *[1] * (batch.inputs["hidden_states"].ndim - 1)) / 1000
    clean = batch.inputs["hidden_states"] - sigma * batch.inputs["velocity"]
    latents = workload._domains["pretrain"].latents
    distances = (latents[None] - clean[:, None]).flatten(2).norm(dim=-1).amin(-1)
    assert (distances < 1e-4).all(), "subtracting σ · velocity must give a training sample"
    assert batch.tokens == 4 * {"sd3.5": 16, "wan2.1": 48}[family]


def test_latents_have_about_unit_variance(workload):
    latents = workload._domains["pretrain"].latents
    assert float(latents.std()) == pytest.approx(1, abs=0.15)


def test_fine_tuning_uses_inverted_data(family, workload):
    domains = workload._domains
    assert torch.equal(domains["finetune"].train.pixels, -domains["pretrain"].train.pixels)
    assert workload._learnt("infer") is workload._domains["finetune"]
    only = {name: STAGES[name] for name in ("pretrain", "infer")}
    without_fine_tuning = workload_of(family, stages=only)
    assert without_fine_tuning._learnt("infer") is without_fine_tuning._domains["pretrain"]


def test_a_request_is_encoded_denoised_and_decoded(family, workload):
    windows = Windows()
    out = workload.generate(model_of(workload), next(workload.requests()), windows)
    assert windows.names == ["encode_prompt", "denoise", "denoise_step", "denoise_step", "decode_pictures"]
    shape = (3, 3, 16, 16) if family == "sd3.5" else (3, 5, 3, 16, 16)
    assert (out.samples, out.outputs.shape) == (3, shape)


@CLIPS_ARE_SLOW
def test_quality_and_artifacts(family):
    workload = workload_of(family, eval_samples=20)
    model = model_of(workload)
    quality = workload.quality(model, "finetune")
    expected = {"FD", "FD_floor", "class_accuracy", "class_accuracy_real", "validation_loss"}
    if family == "wan2.1":
        expected |= {"temporal_consistency", "temporal_consistency_real"}
        assert 0.5 < quality["temporal_consistency_real"].value <= 1
    assert set(quality) == expected
    assert quality["FD"].value > quality["FD_floor"].value > 0
    assert "negatives" in quality["FD"].note
    (name, content), *_ = workload.artifacts(model, "finetune").items()
    assert Image.open(io.BytesIO(content)).format == {"samples.png": "PNG", "samples.gif": "GIF"}[name]
    description = workload.facts["artifacts"][name]
    assert description.startswith(f"generated {'clips' if name.endswith('gif') else 'images'}, ")
    assert "the digit zero" in description


@pytest.mark.parametrize(
    ("data", "captions"), [("photos", 2), pytest.param("easy-vqa", 24, marks=pytest.mark.slow)]
)
def test_built_in_sets_are_selected_by_name(data, captions, monkeypatch):
    monkeypatch.setattr(photos, "STRIDE", 32)
    workload = workload_of("sd3.5", data=data, eval_samples=48)
    assert workload.facts["data_captions"] == captions
    assert workload.facts["data"] in ("scikit-learn photos", "easy-VQA 1.0")
    model = model_of(workload)
    assert torch.isfinite(workload.loss(model, next(workload.batches("pretrain"))))
    domain = workload._domains["pretrain"]
    assert len(domain.train.captions) == captions
    quality = workload.quality(model, "pretrain")
    assert quality["class_accuracy_real"].value > {"photos": 0.9, "easy-vqa": 0.5}[data]
    assert quality["FD"].value > quality["FD_floor"].value > 0
    assert torch.equal(workload._domains["finetune"].train.pixels, -domain.train.pixels)


def test_clips_from_files_are_not_inverted_for_fine_tuning(tmp_path):
    """Uses animated images of two captions; also evaluates quality and generates clips."""
    for number in range(20):
        name, level = ("dusk", 220 - 5 * number) if number % 2 else ("dawn", 20 + 5 * number)
        (tmp_path / name).mkdir(exist_ok=True)
        pages = [Image.new("RGB", (24, 16), (level, level, level // (step + 1))) for step in range(7)]
        pages[0].save(tmp_path / name / f"{number}.gif", save_all=True, append_images=pages[1:], duration=100)
    workload = workload_of("wan2.1", data=str(tmp_path))
    assert workload.facts["sample"] == "5 × 3 × 16 × 16"
    assert workload.facts["data_captions"] == 2
    assert workload._data.captions == ("dawn", "dusk")
    assert workload._domains["finetune"].train.sha256() == workload._domains["pretrain"].train.sha256()
    model = model_of(workload)
    workload.loss(model, next(workload.batches("pretrain"))).backward()
    quality = workload.quality(model, "pretrain")
    assert {"class_accuracy", "temporal_consistency", "FD"} <= set(quality)
    out = workload.generate(model, next(workload.requests()), Windows())
    assert out.outputs.shape == (3, 5, 3, 16, 16)


@pytest.mark.parametrize("frames", [2, 4, 6])
def test_numbers_of_frames_that_the_autoencoder_does_not_support_are_usage_errors(frames):
    with pytest.raises(UsageError, match=f"clips of {frames} frames .* set frames to [15] or [59]"):
        workload_of("wan2.1", frames=frames)


def test_lora_starts_as_the_identity_and_gets_gradients(workload):
    model = model_of(workload)
    batch = next(workload.batches("finetune"))
    before = workload.loss(model, batch).detach()
    adapted = lora(LoraOptions(r=2)).apply(model, workload.host.targets(model))
    torch.testing.assert_close(workload.loss(adapted, batch).detach(), before)
    workload.loss(adapted, batch).backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in adapted.parameters())


@pytest.fixture(scope="module")
def saved_once(family, tmp_path_factory):
    """The folder of a diffusers pipeline of the preset, which no test changes."""
    folder = tmp_path_factory.mktemp(family)
    save_flow(family, folder)
    return folder


@pytest.fixture
def saved(saved_once, tmp_path):
    """A copy of that folder."""
    return shutil.copytree(saved_once, tmp_path / "saved")


def test_a_saved_pipeline_generates_the_same_samples_as_diffusers(family, saved):
    workload = workload_of(family, str(saved), denoising_steps=3, guidance_scale=2.5, resolution=16, frames=5)
    model = workload.build_model(from_scratch=False, load_kwargs={}).eval()
    request = next(workload.requests())
    ours = workload.generate(model, request, Windows()).outputs
    common = {
        "prompt": request.inputs["prompts"],
        "latents": request.inputs["noise"],
        "num_inference_steps": 3,
        "guidance_scale": 2.5,
        "height": 16,
        "width": 16,
        "max_sequence_length": {"sd3.5": 4, "wan2.1": 6}[family],
        "output_type": "pt",
    }
    if family == "sd3.5":
        plain = StableDiffusion3Pipeline.from_pretrained(saved)
        plain.set_progress_bar_config(disable=True)
        theirs = plain(**common, negative_prompt="").images
    else:
        plain = WanPipeline.from_pretrained(saved)
        plain.set_progress_bar_config(disable=True)
        theirs = plain(**common, negative_prompt="", num_frames=5).frames
    assert isinstance(plain.scheduler, FlowMatchEulerDiscreteScheduler)
    torch.testing.assert_close((ours / 2 + 0.5).clamp(0, 1), theirs, rtol=1e-3, atol=1e-4)


def test_a_saved_model_determines_the_size_of_the_data_and_loads_in_bfloat16(family, saved):
    if family == "sd3.5":
        assert workload_of(family, str(saved)).facts["sample"] == "3 × 16 × 16"
    workload = workload_of(family, str(saved), resolution=16, frames=5)
    narrow = workload.build_model(from_scratch=False, load_kwargs={"dtype": torch.bfloat16})
    assert narrow.proj_out.weight.dtype == torch.bfloat16
    assert torch.isfinite(workload.loss(narrow, next(workload.batches("finetune"))))


def test_the_modality_of_a_saved_pipeline_is_detected(family, saved):
    from eflm.planning.find_modality import settle
    from eflm_schemas import RunSpec

    assert settle(RunSpec(model=str(saved)), eflm.load_plugins()).modality == family


def test_a_missing_model_is_an_error(family):
    with pytest.raises(ModelError, match="nowhere/at-all"):
        workload_of(family, model="nowhere/at-all")


def test_weights_of_a_hub_id_are_downloaded_when_the_model_is_built(family, saved, hub):
    for other in (
        "sd3.5_medium.safetensors",
        "text_encoder/model.fp16.safetensors",
        "transformer/model.onnx",
    ):
        (saved / other).write_bytes(b"must not be downloaded")
    commit = hub.publish("org/tiny", saved)
    workload = workload_of(family, "org/tiny", resolution=16, frames=5)
    assert (workload.facts["model"], workload.facts["model_revision"]) == ("org/tiny", commit)
    weights = "transformer/diffusion_pytorch_model.safetensors"
    assert weights not in hub.fetched()
    model_of(workload)
    assert weights not in hub.fetched(), "random weights need no download"
    model = workload.build_model(from_scratch=False, load_kwargs={})
    fetched = {name for name in hub.fetched() if not name.endswith(".json")}
    assert fetched == {
        path.relative_to(saved).as_posix()
        for path in saved.rglob("*.safetensors")
        if path.name in ("model.safetensors", "diffusion_pytorch_model.safetensors")
    }
    own = load_transformer(saved / "transformer", DiffusionHost())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), own.parameters(), strict=True))


def test_a_saved_pipeline_is_identified_by_its_weights(family, saved):
    def model_sha256():
        return workload_of(family, str(saved), resolution=16, frames=5).facts["model_sha256"]

    first = model_sha256()
    assert first == model_sha256()
    transformer = load_transformer(saved / "transformer", DiffusionHost())
    torch.nn.init.ones_(transformer.proj_out.bias)
    transformer.save_pretrained(saved / "transformer")
    assert model_sha256() != first


def test_a_folder_without_a_complete_pipeline_is_a_one_line_error(family, saved):
    with pytest.raises(ModelError, match=r"transformer .*model_index\.json"):
        workload_of(family, str(saved / "transformer"))
    (saved / "vae" / "config.json").unlink()
    with pytest.raises(ModelError, match=r"^--model [^\n]*saved[^\n]*the folder of a whole pipeline[^\n]*$"):
        workload_of(family, str(saved))
