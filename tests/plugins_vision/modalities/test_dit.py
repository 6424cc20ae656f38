"""The DiT modality: batches, requests, quality, and saved pipelines compared with diffusers."""

from __future__ import annotations

import io
from contextlib import contextmanager

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTTransformer2DModel
from PIL import Image

import eflm
from eflm import ModelError
from eflm.planning.stage_options import InferOptions, PretrainOptions
from eflm.registry.contracts import WorkloadRequest
from eflm_vision.modalities.dit import DitModality
from eflm_vision.modalities.options import DitOptions
from eflm_vision.modalities.presets import SHAPES, dit
from support.diffusers import tiny_dit
from support.saved import save_dit

STAGES = {"pretrain": PretrainOptions(batch_size=32), "infer": InferOptions(batch_size=4)}


def workload_of(model="dit-nano", seed=0, data=None, **options):
    request = WorkloadRequest(model=model, data=data, stages=STAGES, seed=seed, device="cpu")
    return DitModality(DitOptions(**options)).prepare(request)


class Windows:
    """A `Phase` that records the opened windows."""

    def __init__(self):
        self.names = []

    @contextmanager
    def __call__(self, name, *, tokens=0, samples=0):
        self.names.append((name, samples))
        yield


def test_the_same_seed_gives_the_same_batches_and_weights():
    one, same, other = workload_of(), workload_of(), workload_of(seed=1)
    first, again, differently = (next(w.batches("pretrain")) for w in (one, same, other))
    assert first.samples == 32
    assert first.tokens == 32 * 16
    for name, tensor in first.inputs.items():
        assert torch.equal(tensor, again.inputs[name])
        assert not torch.equal(tensor, differently.inputs[name])
    weights, others = (w.build_model(from_scratch=True, load_kwargs={}).state_dict() for w in (one, other))
    assert any(not torch.equal(weights[name], others[name]) for name in weights)


def test_labels_are_dropped_in_the_batch_and_not_by_the_model():
    workload = workload_of(label_dropout=0.5)
    labels = torch.cat(
        [b.inputs["labels"] for b, _ in zip(workload.batches("pretrain"), range(20), strict=False)]
    )
    assert float((labels == 10).float().mean()) == pytest.approx(0.5, abs=0.1)
    model = workload.build_model(from_scratch=True, load_kwargs={}).train()
    batch = next(workload.batches("pretrain"))
    assert torch.equal(workload.loss(model, batch), workload.loss(model, batch))


def test_a_new_model_predicts_zero_and_learns():
    workload = workload_of()
    model = workload.build_model(from_scratch=True, load_kwargs={})
    batches = workload.batches("pretrain")
    loss = workload.loss(model, next(batches))
    assert float(loss) == pytest.approx(1, abs=0.1), (
        "the loss of predicting zero is the variance of the noise, 1"
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        loss = workload.loss(model, next(batches))
        loss.backward()
        optimizer.step()
    assert float(loss) < 0.5


def test_a_request_is_denoised_step_by_step():
    workload, windows = workload_of(denoising_steps=7), Windows()
    model = workload.build_model(from_scratch=True, load_kwargs={})
    request = next(workload.requests())
    out = workload.generate(model, request, windows)
    assert windows.names == [("denoise", 4)] + [("denoise_step", 4)] * 7
    assert (out.samples, out.tokens, out.outputs.shape) == (4, 0, (4, 1, 8, 8))


def test_without_guidance_the_model_evaluates_each_sample_once():
    counts = []
    for scale in (1.0, 2.0):
        workload = workload_of(guidance_scale=scale, denoising_steps=3)
        model = workload.build_model(from_scratch=True, load_kwargs={})
        rows = []
        model.register_forward_pre_hook(lambda _m, args, rows=rows: rows.append(len(args[0])))
        workload.generate(model, next(workload.requests()), Windows())
        counts.append(rows)
    assert counts == [[4] * 3, [8] * 3]


def test_quality_and_sample_grid():
    workload = workload_of(eval_samples=30, denoising_steps=2)
    model = workload.build_model(from_scratch=True, load_kwargs={}).eval()
    quality = workload.quality(model, "pretrain")
    assert set(quality) == {"FD", "FD_floor", "class_accuracy", "class_accuracy_real", "validation_loss"}
    assert quality["FD"].value > 3 * quality["FD_floor"].value > 0
    assert quality["class_accuracy"].value < 0.5 < 0.93 < quality["class_accuracy_real"].value
    assert quality["validation_loss"].value == pytest.approx(1, abs=0.05)
    assert "CNN trained on 1,438 images of scikit-learn digits" in quality["FD"].note
    picture = Image.open(io.BytesIO(workload.artifacts(model, "pretrain")["samples.png"]))
    assert picture.size == (3 * 50 + 2, 10 * 50 + 2)
    assert workload.facts["artifacts"] == {
        "samples.png": "generated images, one row for each of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    }
    assert quality["FD"] == workload.quality(model, "pretrain")["FD"]


@pytest.mark.parametrize(
    ("name", "millions"), [("dit-nano", 1.08), ("dit-b-4", 130), ("dit-l-8", 458), ("dit-xl-2", 675)]
)
def test_presets_have_the_published_shapes(name, millions):
    """Table 1 of arXiv 2212.09748. In diffusers, every block has its own embedding of timestep and class."""
    with torch.device("meta"):
        model = dit(name, classes=10)
    depth, width = SHAPES[name][:2]
    embedding = sum(p.numel() for p in model.transformer_blocks[0].norm1.emb.parameters())
    count = sum(p.numel() for p in model.parameters())
    expected = millions * 1e6 + (embedding * (depth - 1) if name != "dit-nano" else 0)
    assert len(model.transformer_blocks) == depth
    assert count == pytest.approx(expected, rel=0.01), f"{count:,} against {expected:,.0f}, width {width}"


@pytest.fixture
def pipeline(tmp_path):
    """A saved DiT pipeline of diffusers with an autoencoder."""
    pipeline = save_dit(tmp_path / "saved")
    return pipeline, tmp_path / "saved"


def test_a_saved_pipeline_generates_the_same_images_as_diffusers(pipeline):
    theirs, path = pipeline
    workload = workload_of(str(path), denoising_steps=4, guidance_scale=3.0)
    model = workload.build_model(from_scratch=False, load_kwargs={}).eval()
    request = next(workload.requests())
    windows = Windows()
    ours = workload.generate(model, request, windows).outputs
    assert windows.names[-1] == ("decode_pictures", 4)

    theirs.transformer.eval()
    scheduler = DDIMScheduler.from_config(theirs.scheduler.config)
    scheduler.set_timesteps(4)
    latents, labels = request.inputs["noise"], request.inputs["labels"]
    with torch.no_grad():
        for step in scheduler.timesteps:
            both = theirs.transformer(
                torch.cat([latents] * 2), step.expand(8), torch.cat([labels, torch.full((4,), 10)])
            ).sample[:, :4]
            noise = both[4:] + 3.0 * (both[:4] - both[4:])
            latents = scheduler.step(noise, step, latents).prev_sample
        expected = theirs.vae.decode(latents / theirs.vae.config.scaling_factor).sample
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_a_saved_pipeline_is_trained_on_its_latents(pipeline):
    workload = workload_of(str(pipeline[1]))
    batch = next(workload.batches("pretrain"))
    assert batch.inputs["noisy"].shape == (32, 4, 8, 8)
    assert batch.tokens == 32 * 16
    model = workload.build_model(from_scratch=True, load_kwargs={})
    assert torch.isfinite(workload.loss(model, batch))


def test_weights_of_a_hub_id_are_downloaded_when_the_model_is_built(pipeline, hub):
    theirs, path = pipeline
    commit = hub.publish("org/tiny-dit", path)
    workload = workload_of("org/tiny-dit")
    assert (workload.facts["model"], workload.facts["model_revision"]) == ("org/tiny-dit", commit)
    weights = "transformer/diffusion_pytorch_model.safetensors"
    assert weights not in hub.fetched()
    model = workload.build_model(from_scratch=False, load_kwargs={})
    assert weights in hub.fetched()
    own = theirs.transformer
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), own.parameters(), strict=True))
    # A repository may also contain only a transformer that works on pixels.
    tiny_dit().save_pretrained(path / "alone")
    commit = hub.publish("org/alone", path / "alone")
    alone = workload_of("org/alone")
    assert alone.facts["model_revision"] == commit
    assert alone.build_model(from_scratch=False, load_kwargs={}).config.in_channels == 1


def test_a_folder_is_identified_by_its_weights(pipeline):
    _, path = pipeline
    first = workload_of(str(path)).facts
    assert first["model"] == "saved"
    assert first["model_sha256"] == workload_of(str(path)).facts["model_sha256"]
    tiny_dit().save_pretrained(path / "unused")
    assert first["model_sha256"] == workload_of(str(path)).facts["model_sha256"]
    decoder = AutoencoderKL.from_pretrained(path / "vae")
    torch.nn.init.ones_(decoder.decoder.conv_out.bias)
    decoder.save_pretrained(path / "vae")
    assert first["model_sha256"] != workload_of(str(path)).facts["model_sha256"]


def test_unusable_models_are_errors(pipeline, tmp_path):
    with pytest.raises(ModelError, match="nowhere/at-all"):
        workload_of("nowhere/at-all")
    with pytest.raises(ModelError, match=r"4 input channels.* vae"):
        workload_of(str(pipeline[1] / "transformer"))
    theirs = DiTTransformer2DModel.from_pretrained(
        pipeline[1] / "transformer",
        num_embeds_ada_norm=4,
        low_cpu_mem_usage=False,
        ignore_mismatched_sizes=True,
    )
    theirs.save_pretrained(pipeline[1] / "transformer")
    with pytest.raises(ModelError, match=r"4 classes, .*scikit-learn digits has 10"):
        workload_of(str(pipeline[1]))


@pytest.mark.slow
def test_a_run_pretrains_generates_and_saves_a_grid(tmp_path):
    settings = {
        "pretrain.steps": 2, "pretrain.warmup_steps": 1, "dit.eval_samples": 10, "dit.denoising_steps": 2,
        "infer.requests": 2, "infer.seconds": 0,
    }  # fmt: skip
    result = eflm.bench(
        "dit", attention="nsa", moe="expert-choice", settings=settings, device="cpu", results=tmp_path
    )
    assert result.status == "ok", result.reason
    assert (result.spec.modality, result.spec.model) == ("dit", "dit-nano")
    pretrain, infer = (result.stages[name].metrics for name in ("pretrain", "infer"))
    assert pretrain["FD"].provenance == "evaluated"
    assert pretrain["tokens_per_second"].value == pytest.approx(16 * pretrain["samples_per_second"].value)
    assert infer["images_per_second"].value == pytest.approx(infer["samples_per_second"].value)
    assert infer["denoising_step_time"].n == 4
    assert "IT" not in infer
    for stage in ("pretrain", "infer"):
        (name,) = result.stages[stage].artifacts
        assert Image.open(tmp_path / name).format == "PNG"


def test_text_options_and_causal_attention_are_usage_errors():
    with pytest.raises(eflm.UsageError, match=r"infer\.new_tokens.*modality/dit"):
        eflm.bench("dit", settings={"infer.new_tokens": 8})
    with pytest.raises(eflm.UsageError, match="mamba2"):
        eflm.bench("dit", attention="mamba2")
