"""The modality `dit`: class-conditional diffusion transformers on labelled images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DDPMScheduler, DiTPipeline
from torch import Tensor, nn

from eflm import ModelError
from eflm.registry.contracts import Batch, Generated, Phase, WorkloadRequest
from eflm_plugins.saving.diffusers_models import save_pipeline, save_transformer
from eflm_schemas import Flag, Metric
from eflm_vision.data import named
from eflm_vision.hosts.diffusion import DiffusionHost, auxiliary_loss
from eflm_vision.modalities.denoise import denoise, guided, input_dtype, untimed
from eflm_vision.modalities.options import DitOptions
from eflm_vision.modalities.presets import SHAPES, dit
from eflm_vision.modalities.saved_dit import SavedDit, find
from eflm_vision.quality.features import feature_facts, inception
from eflm_vision.quality.judge import Judge, train
from eflm_vision.quality.scores import describe_rows, mean_loss, picture_scores, shown
from eflm_vision.quality.show import grid

#: Images per batch when quality is evaluated.
AT_ONCE = 100
#: Number of timesteps over which the validation loss is averaged.
LEVELS = 10


class DitModality:
    """Diffusion transformers on labelled images."""

    def __init__(self, options: DitOptions | None = None) -> None:
        self.options = options or DitOptions()

    def prepare(self, request: WorkloadRequest) -> DitWorkload:
        """See `eflm.registry.contracts.Modality`. Raises DataError or ModelError."""
        saved = None if request.model in SHAPES else find(request.model)
        return DitWorkload(request, self.options, saved)


class DitWorkload:
    """Training, inference and evaluation of a diffusion transformer; see `eflm.registry.contracts.Workload`."""

    flags: tuple[Flag, ...] = ()

    def __init__(self, request: WorkloadRequest, options: DitOptions, saved: SavedDit | None) -> None:
        self.host = DiffusionHost()
        self._request, self._options, self._saved = request, options, saved
        size, channels = (saved.size, saved.channels) if saved else SHAPES[request.model][4:]
        found = named.pictures(request.data, size=size)
        self._pictures = found.fitted(channels, size)
        if saved is not None and saved.classes != len(found.classes):
            raise ModelError(
                f"{request.model} has {saved.classes} classes, but {found.name} has {len(found.classes)}; "
                f"pass images of {saved.classes} classes with --data"
            )
        self._train, self._held_out = self._pictures.split()
        self._inception = inception(options.features, request.device)
        self._encode = (lambda pixels: pixels) if saved is None else saved.encode
        self._noise = DDPMScheduler() if saved is None else DDPMScheduler.from_config(saved.scheduler)
        self.facts: Mapping[str, Any] = {
            "data": found.name,
            "data_sha256": self._pictures.sha256(),
            "data_pictures": len(found),
            "data_classes": len(found.classes),
            "picture": f"{channels} × {size} × {size}",
            "architecture": "DiTTransformer2DModel",
            **feature_facts(self._inception),
            "artifacts": {"samples.png": f"generated images, {describe_rows(found.classes)}"},
            **({"preset": request.model} if saved is None else saved.facts),
        }

    # --- the model ------------------------------------------------------------------------------------

    def build_model(self, *, from_scratch: bool, load_kwargs: Mapping[str, Any]) -> nn.Module:
        """Build the preset or the saved model. Random weights depend only on the request's seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._request.seed)
            if self._saved is not None:
                model = self._saved.build(from_scratch=from_scratch, load_kwargs=load_kwargs, host=self.host)
            else:
                model = dit(self._request.model, len(self._pictures.classes))
        return _without_label_dropout(model)

    def outline(self) -> nn.Module:
        """Build the model that `build_model` loads, but read no weights; see `eflm.registry.contracts.HasOutline`."""
        if self._saved is None:
            return self.build_model(from_scratch=True, load_kwargs={})
        return _without_label_dropout(self._saved.outline(self.host))

    def save(self, model: nn.Module, folder: str) -> None:
        """Write a pipeline that diffusers loads, or transformer and scheduler for a model that works on pixels.

        diffusers' `DiTPipeline` needs an autoencoder, so `DiTTransformer2DModel.from_pretrained` loads the latter.
        """
        scheduler = DDIMScheduler.from_config(self._noise.config)
        if self._saved is None or self._saved.decoder is None:
            save_transformer(model, folder)
            scheduler.save_pretrained(Path(folder) / "scheduler")
            return
        names = {index: str(name) for index, name in enumerate(self._pictures.classes)}
        save_pipeline(DiTPipeline(None, self._saved.decoder, scheduler, names), model, folder)

    # --- training -------------------------------------------------------------------------------------

    def batches(self, stage: str) -> Iterator[Batch]:
        """Yield noisy images with their noise, freshly sampled for every step."""
        count, generator = self._stage(stage).batch_size, torch.Generator().manual_seed(self._request.seed)
        while True:
            rows = torch.randint(len(self._train), (count,), generator=generator)
            labels = self._train.labels[rows]
            hidden = torch.rand(count, generator=generator) < self._options.label_dropout
            steps = torch.randint(self._noise.config.num_train_timesteps, (count,), generator=generator)
            clean = self._train_latents[rows]
            noise = torch.randn(clean.shape, generator=generator)
            inputs = {
                "noisy": self._noise.add_noise(clean, noise, steps),
                "noise": noise,
                "timestep": steps,
                "labels": labels.masked_fill(hidden, self._no_class),
            }
            inputs = {name: tensor.to(self._request.device) for name, tensor in inputs.items()}
            yield Batch(inputs=inputs, samples=count, tokens=count * self._tokens)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean squared error of the predicted noise (arXiv 2006.11239, eq. 14) plus the routers' losses."""
        inputs = batch.inputs
        predicted = self._predict(model, inputs["noisy"], inputs["timestep"], inputs["labels"])
        return F.mse_loss(predicted.float(), inputs["noise"]) + auxiliary_loss(model)

    def _predict(self, model: nn.Module, noisy: Tensor, timestep: Tensor, labels: Tensor) -> Tensor:
        """Predict the noise, (B, channels, height, width), without the variances that some models also predict."""
        dtype = input_dtype(model)
        found = model(noisy.to(dtype), timestep=timestep, class_labels=labels, return_dict=False)[0]
        return found[:, : noisy.shape[1]]

    # --- inference ------------------------------------------------------------------------------------

    def requests(self) -> Iterator[Batch]:
        """Yield requests with initial noise and labels that cycle through the classes."""
        count, generator = self._stage("infer").batch_size, torch.Generator().manual_seed(self._request.seed)
        first = 0
        while True:
            labels = (torch.arange(count) + first) % len(self._pictures.classes)
            first += count
            yield Batch(inputs=self._start(labels, generator), samples=count, tokens=0)

    def _start(self, labels: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        noise = torch.randn((len(labels), *self._held_out_latents.shape[1:]), generator=generator)
        inputs = {"noise": noise, "labels": labels}
        return {name: tensor.to(self._request.device) for name, tensor in inputs.items()}

    def generate(self, model: nn.Module, request: Batch, phase: Phase) -> Generated:
        """Generate an image for each label, in windows "denoise", "denoise_step" and "decode_pictures"."""
        labels, scale = request.inputs["labels"], self._options.guidance_scale
        scheduler = DDIMScheduler.from_config(self._noise.config)
        null_labels = torch.full_like(labels, self._no_class)

        def predict(latents: Tensor, timestep: Tensor) -> Tensor:
            times = timestep.expand(len(latents))
            if scale == 1:
                return self._predict(model, latents, times, labels).float()
            both = self._predict(
                model,
                torch.cat([latents, latents]),
                torch.cat([times, times]),
                torch.cat([labels, null_labels]),
            )
            return guided(*both.float().chunk(2), scale)

        pictures = denoise(predict, scheduler, request.inputs["noise"], self._options.denoising_steps, phase)
        if self._saved is not None and self._saved.decoder is not None:
            with phase("decode_pictures", samples=len(pictures)):
                pictures = self._saved.decode(pictures)
        return Generated(outputs=pictures, samples=len(pictures), tokens=0)

    # --- quality --------------------------------------------------------------------------------------

    def quality(self, model: nn.Module, stage: str) -> Mapping[str, Metric]:
        """Return FD and class_accuracy of generated and of real images, and the validation loss."""
        self._evaluated = self._pictures.made_anew(*self._generated(model))
        how = f"{len(self._evaluated)} generated images, {self._options.denoising_steps} steps"
        return {
            **picture_scores(self._judge, self._inception, self._train, self._held_out, self._evaluated, how),
            "validation_loss": self._validation_loss(model),
        }

    def artifacts(self, model: nn.Module, stage: str) -> Mapping[str, bytes]:
        """Return a PNG with one row of generated images for each of the first ten classes."""
        rows, columns = shown(self._evaluated.labels)
        return {"samples.png": grid(self._evaluated.pixels[rows], columns)}

    def _generated(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        """Generate equally many images of each class. The noise does not depend on the run's seed."""
        count, classes = self._options.eval_samples, len(self._pictures.classes)
        labels, generator = torch.arange(count) % classes, torch.Generator().manual_seed(0)
        pictures = []
        for part in labels.split(AT_ONCE):
            request = Batch(inputs=self._start(part, generator), samples=len(part), tokens=0)
            pictures.append(self.generate(model, request, untimed).outputs.float().cpu())
        return torch.cat(pictures).clamp(-1, 1), labels

    @torch.no_grad()
    def _validation_loss(self, model: nn.Module) -> Metric:
        """Return the loss on held-out images, with the same timesteps and noise in every run."""
        clean, labels = self._held_out_latents, self._held_out.labels
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
        levels = torch.linspace(0, self._noise.config.num_train_timesteps - 1, LEVELS).long()
        steps = levels[torch.arange(len(clean)) % LEVELS]
        noisy = self._noise.add_noise(clean, noise, steps)
        losses = []
        for part in torch.arange(len(clean)).split(AT_ONCE):
            inputs = (tensor[part].to(self._request.device) for tensor in (noisy, steps, labels))
            predicted = self._predict(model, *inputs).float().cpu()
            losses.append((predicted - noise[part]).square().flatten(1).mean(1))
        return mean_loss(torch.cat(losses), LEVELS)

    # --- sizes ----------------------------------------------------------------------------------------

    @cached_property
    def _train_latents(self) -> Tensor:
        """The training images as the model's input: the images themselves, or their latents."""
        return self._encode(self._train.pixels)

    @cached_property
    def _held_out_latents(self) -> Tensor:
        return self._encode(self._held_out.pixels)

    @cached_property
    def _judge(self) -> Judge:
        return train(self._train, self._held_out)

    @property
    def _no_class(self) -> int:
        """The label of the null class, for classifier-free guidance."""
        return len(self._pictures.classes)

    @property
    def _tokens(self) -> int:
        """Number of patches of an image."""
        patch = self._saved.patch if self._saved else SHAPES[self._request.model][3]
        return (self._pictures.pixels.shape[-1] // patch) ** 2

    def _stage(self, name: str) -> Any:
        return self._request.stages[name]


def _without_label_dropout(model: nn.Module) -> nn.Module:
    """Disable the dropout of labels in the model, and return the model."""
    for module in model.modules():
        # `batches` drops labels for guidance. The model's own label dropout is disabled, because each block has its
        # own embedding and would drop different labels.
        if hasattr(module, "dropout_prob"):
            module.dropout_prob = 0.0
    return model
