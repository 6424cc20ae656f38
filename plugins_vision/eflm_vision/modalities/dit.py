"""Class-conditional diffusion transformers: pictures and a DiT become the workload that the stages run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor, nn

from eflm import ModelError
from eflm.contracts import Batch, Generated, Phase, WorkloadRequest
from eflm_schemas import Flag, Metric
from eflm_vision.data import named
from eflm_vision.hosts.diffusion import DiffusionHost, auxiliary_loss
from eflm_vision.modalities.denoise import denoise, guided, input_dtype, untimed
from eflm_vision.modalities.options import DitOptions
from eflm_vision.modalities.presets import SHAPES, dit
from eflm_vision.modalities.saved_dit import SavedDit, find
from eflm_vision.quality.features import inception, told
from eflm_vision.quality.judge import Judge, train
from eflm_vision.quality.scores import mean_loss, picture_scores, rows_told, shown
from eflm_vision.quality.show import grid

#: Pictures generated at one time when quality is evaluated.
AT_ONCE = 100
#: Noise levels at which the validation loss is averaged, of the scheduler's timesteps.
LEVELS = 10


class DitModality:
    """Diffusion transformers on labelled pictures."""

    def __init__(self, options: DitOptions | None = None) -> None:
        self.options = options or DitOptions()

    def prepare(self, request: WorkloadRequest) -> DitWorkload:
        """See `eflm.contracts.Modality`. Raises DataError or ModelError."""
        saved = None if request.model in SHAPES else find(request.model)
        return DitWorkload(request, self.options, saved)


class DitWorkload:
    """A diffusion transformer's work; see `eflm.contracts.Workload`."""

    flags: tuple[Flag, ...] = ()

    def __init__(self, request: WorkloadRequest, options: DitOptions, saved: SavedDit | None) -> None:
        self.host = DiffusionHost()
        self._request, self._options, self._saved = request, options, saved
        size, channels = (saved.size, saved.channels) if saved else SHAPES[request.model][4:]
        found = named.pictures(request.data, size=size)
        self._pictures = found.fitted(channels, size)
        if saved is not None and saved.classes != len(found.classes):
            raise ModelError(
                f"{request.model} knows {saved.classes} classes, and {found.name} has {len(found.classes)}; "
                "give pictures of its own classes with --data"
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
            **told(self._inception),
            "artifacts": {"samples.png": f"generated pictures, {rows_told(found.classes)}"},
            **({"preset": request.model} if saved is None else saved.facts),
        }

    # --- the model ------------------------------------------------------------------------------------

    def build_model(self, *, from_scratch: bool, load_kwargs: Mapping[str, Any]) -> nn.Module:
        """The preset, or the saved model; random weights come from the request's seed alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._request.seed)
            if self._saved is not None:
                model = self._saved.build(from_scratch=from_scratch, load_kwargs=load_kwargs)
            else:
                model = dit(self._request.model, len(self._pictures.classes))
        for module in model.modules():
            # Each block has an embedding of its own, and would hide another class of the batch; `batches` hides them.
            if hasattr(module, "dropout_prob"):
                module.dropout_prob = 0.0
        return model

    # --- training -------------------------------------------------------------------------------------

    def batches(self, stage: str) -> Iterator[Batch]:
        """Noisy pictures with their noise, drawn anew for every step."""
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
        """The mean squared error of the predicted noise (arXiv 2006.11239, eq. 14), routers' losses included."""
        inputs = batch.inputs
        predicted = self._predict(model, inputs["noisy"], inputs["timestep"], inputs["labels"])
        return F.mse_loss(predicted.float(), inputs["noise"]) + auxiliary_loss(model)

    def _predict(self, model: nn.Module, noisy: Tensor, timestep: Tensor, labels: Tensor) -> Tensor:
        """The noise in (B, channels, height, width). Variances, which some models predict, too, are left out."""
        dtype = input_dtype(model)
        found = model(noisy.to(dtype), timestep=timestep, class_labels=labels, return_dict=False)[0]
        return found[:, : noisy.shape[1]]

    # --- inference ------------------------------------------------------------------------------------

    def requests(self) -> Iterator[Batch]:
        """Classes in turn, and noise to begin with."""
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
        """A picture for each label, in windows "denoise", "denoise_step" and "decode_pictures"."""
        labels, scale = request.inputs["labels"], self._options.guidance_scale
        scheduler = DDIMScheduler.from_config(self._noise.config)
        nothing = torch.full_like(labels, self._no_class)

        def predict(latents: Tensor, timestep: Tensor) -> Tensor:
            times = timestep.expand(len(latents))
            if scale == 1:
                return self._predict(model, latents, times, labels).float()
            both = self._predict(
                model, torch.cat([latents, latents]), torch.cat([times, times]), torch.cat([labels, nothing])
            )
            return guided(*both.float().chunk(2), scale)

        pictures = denoise(predict, scheduler, request.inputs["noise"], self._options.denoising_steps, phase)
        if self._saved is not None and self._saved.decoder is not None:
            with phase("decode_pictures", samples=len(pictures)):
                pictures = self._saved.decode(pictures)
        return Generated(outputs=pictures, samples=len(pictures), tokens=0)

    # --- quality --------------------------------------------------------------------------------------

    def quality(self, model: nn.Module, stage: str) -> Mapping[str, Metric]:
        """FD and class_accuracy of generated pictures, with the real ones' beside them, and the validation loss."""
        self._evaluated = self._pictures.made_anew(*self._generated(model))
        how = f"{len(self._evaluated)} generated images, {self._options.denoising_steps} steps"
        return {
            **picture_scores(self._judge, self._inception, self._train, self._held_out, self._evaluated, how),
            "validation_loss": self._validation_loss(model),
        }

    def artifacts(self, model: nn.Module, stage: str) -> Mapping[str, bytes]:
        """A row of generated pictures for each of the first ten classes."""
        rows, columns = shown(self._evaluated.labels)
        return {"samples.png": grid(self._evaluated.pixels[rows], columns)}

    def _generated(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        """Pictures of all classes alike, from noise that is the same whatever the run's seed."""
        count, classes = self._options.eval_samples, len(self._pictures.classes)
        labels, generator = torch.arange(count) % classes, torch.Generator().manual_seed(0)
        pictures = []
        for part in labels.split(AT_ONCE):
            request = Batch(inputs=self._start(part, generator), samples=len(part), tokens=0)
            pictures.append(self.generate(model, request, untimed).outputs.float().cpu())
        return torch.cat(pictures).clamp(-1, 1), labels

    @torch.no_grad()
    def _validation_loss(self, model: nn.Module) -> Metric:
        """At noise levels and with noise that are the same for every run."""
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
        """What the model sees of the training pictures: themselves, or an autoencoder's latents of them."""
        return self._encode(self._train.pixels)

    @cached_property
    def _held_out_latents(self) -> Tensor:
        return self._encode(self._held_out.pixels)

    @cached_property
    def _judge(self) -> Judge:
        return train(self._train, self._held_out)

    @property
    def _no_class(self) -> int:
        """The label that stands for no class at all."""
        return len(self._pictures.classes)

    @property
    def _tokens(self) -> int:
        """Patches of a picture."""
        patch = self._saved.patch if self._saved else SHAPES[self._request.model][3]
        return (self._pictures.pixels.shape[-1] // patch) ** 2

    def _stage(self, name: str) -> Any:
        return self._request.stages[name]
