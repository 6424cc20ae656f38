"""The modalities `sd3.5` and `wan2.1`: text-to-image and text-to-video models with flow matching.

The model of the run is the transformer, and techniques act on it. Text encoders and autoencoder are frozen; their time
is measured separately from the denoiser's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eflm import UsageError
from eflm.registry.contracts import Batch, Generated, Phase, WorkloadRequest
from eflm_plugins.saving.diffusers_models import save_pipeline
from eflm_schemas import Flag, Metric
from eflm_vision.data import named
from eflm_vision.data.captioned import captioned
from eflm_vision.hosts.diffusion import DiffusionHost, auxiliary_loss
from eflm_vision.modalities.denoise import denoise, guided, input_dtype, untimed
from eflm_vision.modalities.domain import Domain
from eflm_vision.modalities.families import FAMILIES, FRAMES, SIDE, Family
from eflm_vision.modalities.options import FlowOptions
from eflm_vision.modalities.saved_pipeline import SavedPipeline, find
from eflm_vision.quality.features import feature_facts, inception
from eflm_vision.quality.scores import describe_rows, evaluated, mean_loss, picture_scores, shown
from eflm_vision.quality.show import clips, grid
from eflm_vision.quality.steadiness import steadiness

#: Images or clips per batch for encoding and evaluation.
AT_ONCE = 50
#: Number of noise levels over which the validation loss is averaged.
LEVELS = 10


class _Modality:
    """Pipelines of one family on captioned images or clips."""

    family = ""

    def __init__(self, options: FlowOptions | None = None) -> None:
        self.options = options or FlowOptions()

    def prepare(self, request: WorkloadRequest) -> FlowWorkload:
        """See `eflm.registry.contracts.Modality`. Raises DataError or ModelError."""
        family = FAMILIES[self.family]
        saved = None if request.model == f"{self.family}-nano" else find(request.model, family)
        return FlowWorkload(request, self.options, family, saved)


class Sd35Modality(_Modality):
    """Stable Diffusion 3.5."""

    family = "sd3.5"


class Wan21Modality(_Modality):
    """Wan 2.1, text to video."""

    family = "wan2.1"


class FlowWorkload:
    """Training, inference and evaluation of a pipeline; see `eflm.registry.contracts.Workload`."""

    flags: tuple[Flag, ...] = ()

    def __init__(
        self, request: WorkloadRequest, options: FlowOptions, family: Family, saved: SavedPipeline | None
    ) -> None:
        self.host = DiffusionHost()
        self._request, self._options, self._family, self._saved = request, options, family, saved
        pipe = None if saved is None else saved.around()
        own = (SIDE, FRAMES) if saved is None else family.sizes(pipe, saved.config)
        side, frames = options.resolution or own[0], options.frames or own[1]
        if family.clips and frames % 4 != 1:
            raise UsageError(
                f"clips of {frames} frames are not supported: the autoencoder needs 4 n + 1 frames; set frames to "
                f"{frames // 4 * 4 + 1} or {frames // 4 * 4 + 5}"
            )
        self._data = (
            named.clips(request.data, size=side, frames=frames)
            if family.clips
            else captioned(named.pictures(request.data, size=side).fitted(3, side))
        )
        self._pipe: Any = family.nano(self._data) if pipe is None else pipe
        self._inception = inception(options.features, request.device)
        self._pipe.set_progress_bar_config(disable=True)
        self._pipe.to(request.device)
        # Built-in data is inverted for fine-tuning, so that there is something new to learn; user data is not changed.
        changed = self._data.negative() if named.built_in(request.data) else self._data
        self._domains = {
            "pretrain": Domain(self._data, self._encoded),
            "finetune": Domain(changed, self._encoded),
        }
        self.facts: Mapping[str, Any] = {
            "data": self._data.name,
            "data_sha256": self._data.sha256(),
            "data_samples": len(self._data),
            "data_captions": len(self._data.captions),
            "sample": " × ".join(map(str, self._data.pixels.shape[1:])),
            "architecture": family.transformer.__name__,
            **feature_facts(self._inception),
            "artifacts": {
                "samples.gif" if family.clips else "samples.png": (
                    f"generated {'clips' if family.clips else 'images'}, {describe_rows(self._data.captions)}"
                )
            },
            **({"preset": request.model} if saved is None else saved.facts),
        }

    # --- the model ------------------------------------------------------------------------------------

    def build_model(self, *, from_scratch: bool, load_kwargs: Mapping[str, Any]) -> nn.Module:
        """Build the transformer of the preset or the saved pipeline. Random weights depend only on the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._request.seed)
            if self._saved is None:
                return self._family.nano_transformer()
            return self._saved.build(from_scratch=from_scratch, load_kwargs=load_kwargs, host=self.host)

    def outline(self) -> nn.Module:
        """Build the model that `build_model` loads, but read no weights; see `eflm.registry.contracts.HasOutline`."""
        if self._saved is None:
            return self.build_model(from_scratch=True, load_kwargs={})
        return self._saved.outline(self.host)

    def save(self, model: nn.Module, folder: str) -> None:
        """Write the whole pipeline: the transformer, text encoders, tokenizers, autoencoder and scheduler."""
        save_pipeline(self._pipe, model, folder)

    # --- training -------------------------------------------------------------------------------------

    def batches(self, stage: str) -> Iterator[Batch]:
        """Yield interpolations between latents and noise, with the velocity from data to noise."""
        count, generator = (
            self._request.stages[stage].batch_size,
            torch.Generator().manual_seed(self._request.seed),
        )
        latents, labels = self._domains[stage].latents, self._domains[stage].train.labels
        while True:
            rows = torch.randint(len(latents), (count,), generator=generator)
            hidden = torch.rand(count, generator=generator) < self._options.caption_dropout
            # Logit-normal: favours the middle, where the velocity is hardest to predict (arXiv 2403.03206, eq. 19).
            sigmas = torch.randn(count, generator=generator).sigmoid()
            inputs = self._noisy(latents[rows], sigmas, generator)
            inputs |= self._embedded(labels[rows].masked_fill(hidden, self._nothing))
            yield Batch(
                inputs={name: tensor.to(self._request.device) for name, tensor in inputs.items()},
                samples=count,
                tokens=count * self._tokens,
            )

    def _noisy(self, clean: Tensor, sigmas: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return x_σ = (1 − σ) x + σ ε and its velocity ε − x (arXiv 2403.03206, eq. 13 and section 3.1)."""
        noise = torch.randn(clean.shape, generator=generator)
        sigma = sigmas.view(-1, *[1] * (clean.ndim - 1))
        return {
            "hidden_states": (1 - sigma) * clean + sigma * noise,
            "velocity": noise - clean,
            "timestep": sigmas * self._pipe.scheduler.config.num_train_timesteps,
        }

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean squared error of the predicted velocity plus the routers' losses."""
        inputs = {name: tensor for name, tensor in batch.inputs.items() if name != "velocity"}
        return F.mse_loss(self._predict(model, **inputs), batch.inputs["velocity"]) + auxiliary_loss(model)

    def _predict(self, model: nn.Module, **inputs: Tensor) -> Tensor:
        dtype = input_dtype(model)
        inputs = {name: t if name == "timestep" else t.to(dtype) for name, t in inputs.items()}
        return model(**inputs, return_dict=False)[0].float()

    # --- inference ------------------------------------------------------------------------------------

    def requests(self) -> Iterator[Batch]:
        """Yield requests with initial noise and prompts that cycle through the captions."""
        count, generator = (
            self._request.stages["infer"].batch_size,
            torch.Generator().manual_seed(self._request.seed),
        )
        first = 0
        while True:
            labels = (torch.arange(count) + first) % len(self._data.captions)
            first += count
            yield Batch(inputs=self._start(labels, generator), samples=count, tokens=0)

    def _start(self, labels: Tensor, generator: torch.Generator) -> dict[str, Any]:
        shape = self._learnt("infer").held_out_latents.shape[1:]
        noise = torch.randn((len(labels), *shape), generator=generator)
        return {"noise": noise.to(self._request.device), "prompts": [self._data.captions[i] for i in labels]}

    def generate(self, model: nn.Module, request: Batch, phase: Phase) -> Generated:
        """Generate an image or clip for each prompt.

        Windows: "encode_prompt", "denoise" with one "denoise_step" per step, and "decode_pictures".
        """
        prompts, scale = request.inputs["prompts"], self._options.guidance_scale
        with phase("encode_prompt", samples=len(prompts)):
            # Encode the empty prompts for classifier-free guidance in the same batch, like the pipelines.
            texts = [*prompts, *[""] * len(prompts)] if scale > 1 else prompts
            conditions = self._family.conditions(self._pipe, texts, self._request.device)

        def predict(latents: Tensor, timestep: Tensor) -> Tensor:
            doubled = torch.cat([latents, latents]) if scale > 1 else latents
            velocity = self._predict(
                model, hidden_states=doubled, timestep=timestep.expand(len(doubled)), **conditions
            )
            return guided(*velocity.chunk(2), scale) if scale > 1 else velocity

        scheduler = type(self._pipe.scheduler).from_config(self._pipe.scheduler.config)
        latents = denoise(predict, scheduler, request.inputs["noise"], self._options.denoising_steps, phase)
        frames = self._data.pixels.shape[1] if self._family.clips else 1
        with phase("decode_pictures", samples=len(latents), tokens=len(latents) * frames):
            pixels = self._family.decode(self._pipe, latents)
        return Generated(outputs=pixels, samples=len(pixels), tokens=0)

    # --- quality --------------------------------------------------------------------------------------

    def quality(self, model: nn.Module, stage: str) -> Mapping[str, Metric]:
        """Return FD, class_accuracy and the validation loss, and for clips their temporal consistency."""
        domain = self._learnt(stage)
        self._evaluated = domain.train.made_anew(*self._generated(model))
        parts = (domain.train.frames(), domain.held_out.frames(), self._evaluated.frames())
        how = f"{len(self._evaluated)} generated samples, {self._options.denoising_steps} steps"
        found = picture_scores(domain.judge, self._inception, *parts, how)
        found["validation_loss"] = self._validation_loss(model, domain)
        if self._family.clips:
            note = "cosine similarity of the judge's features of neighbouring frames"
            for name, clips_of in (("", self._evaluated), ("_real", domain.held_out)):
                values = steadiness(domain.judge, clips_of.pixels)
                found[f"temporal_consistency{name}"] = evaluated(
                    float(values.mean()), "ratio", len(values), note, sd=float(values.std())
                )
        return found

    def artifacts(self, model: nn.Module, stage: str) -> Mapping[str, bytes]:
        """Return a PNG of images or a GIF of clips, with one row for each of the first ten captions."""
        rows, columns = shown(self._evaluated.labels)
        pixels = self._evaluated.pixels[rows]
        if self._family.clips:
            return {"samples.gif": clips(pixels, columns)}
        return {"samples.png": grid(pixels, columns)}

    def _generated(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        """Generate equally many samples of each caption. The noise does not depend on the run's seed."""
        labels = torch.arange(self._options.eval_samples) % len(self._data.captions)
        generator, made = torch.Generator().manual_seed(0), []
        for part in labels.split(AT_ONCE):
            request = Batch(inputs=self._start(part, generator), samples=len(part), tokens=0)
            made.append(self.generate(model, request, untimed).outputs.cpu())
        return torch.cat(made).clamp(-1, 1), labels

    @torch.no_grad()
    def _validation_loss(self, model: nn.Module, domain: Domain) -> Metric:
        """Return the velocity loss on held-out samples, with the same noise levels and noise in every run."""
        clean = domain.held_out_latents
        sigmas = ((torch.arange(len(clean)) % LEVELS) + 0.5) / LEVELS
        inputs = self._noisy(clean, sigmas, torch.Generator().manual_seed(0)) | self._embedded(
            domain.held_out.labels
        )
        losses = []
        for rows in torch.arange(len(clean)).split(AT_ONCE):
            part = {name: tensor[rows].to(self._request.device) for name, tensor in inputs.items()}
            velocity = part.pop("velocity")
            losses.append((self._predict(model, **part) - velocity).square().flatten(1).mean(1).cpu())
        return mean_loss(torch.cat(losses), LEVELS)

    # --- data -----------------------------------------------------------------------------------------

    def _learnt(self, stage: str) -> Domain:
        """Return the data on which the model was last trained at the end of a stage.

        For inference, this is the data of the last training stage.
        """
        trained = [name for name in ("pretrain", "finetune") if name in self._request.stages]
        return self._domains[(trained[-1] if trained else "pretrain") if stage == "infer" else stage]

    @torch.no_grad()
    def _encoded(self, pixels: Tensor) -> Tensor:
        parts = [
            self._family.encode(self._pipe, part.to(self._request.device)).cpu()
            for part in pixels.split(AT_ONCE)
        ]
        return torch.cat(parts)

    def _embedded(self, labels: Tensor) -> dict[str, Tensor]:
        """Return the encoded captions of these labels. The last label is the empty caption."""
        return {name: rows[labels] for name, rows in self._caption_conditions.items()}

    @cached_property
    def _caption_conditions(self) -> dict[str, Tensor]:
        with torch.no_grad():
            found = self._family.conditions(self._pipe, [*self._data.captions, ""], self._request.device)
        return {name: rows.cpu() for name, rows in found.items()}

    @property
    def _nothing(self) -> int:
        return len(self._data.captions)

    @cached_property
    def _tokens(self) -> int:
        """Number of tokens of a sample, without those of the prompt."""
        if self._saved is None:
            patch: Any = self._family.nano_transformer().config.patch_size
        else:
            patch = self._saved.config["patch_size"]
        sizes = self._learnt("infer").held_out_latents.shape[2:]
        patches: Sequence[int] = [patch] * len(sizes) if isinstance(patch, int) else patch
        tokens = 1
        for size, part in zip(sizes, patches, strict=True):
            tokens *= size // part
        return tokens
