"""The options of the modalities, as `--set dit.denoising_steps=50` takes them. Torch-free: the listing reads them."""

from __future__ import annotations

from attrs import frozen

from eflm_schemas import option


@frozen(kw_only=True)
class DitOptions:
    """How pictures are generated and scored: the same for every technique."""

    denoising_steps: int = option(25, "steps of DDIM from noise to a picture", ge=1, le=1000)
    guidance_scale: float = option(
        2.0, "classifier-free guidance; at 1 the model is asked once a step instead of twice", ge=1
    )
    label_dropout: float = option(
        0.1, "share of training pictures whose class is hidden, for guidance", ge=0, lt=1
    )
    eval_samples: int = option(200, "generated pictures that quality is evaluated on", ge=10)
    features: str = option(
        "auto",
        "what FD is taken in: inception (its weights must be in torch.hub's folder), cnn (the judge's own), or auto, "
        "which is inception if it is at hand",
        choices=("auto", "inception", "cnn"),
    )


@frozen(kw_only=True)
class FlowOptions:
    """How pictures and clips are generated and scored; the options of sd3.5 and wan2.1 alike."""

    denoising_steps: int = option(
        28, "steps of the pipeline's own scheduler from noise to a sample", ge=1, le=1000
    )
    guidance_scale: float = option(
        4.5,
        "classifier-free guidance; at 1 the model is asked about each sample once a step instead of twice",
        ge=1,
    )
    caption_dropout: float = option(0.1, "share of training samples whose caption is hidden", ge=0, lt=1)
    eval_samples: int = option(80, "generated samples that quality is evaluated on", ge=10)
    features: str = option(
        "auto",
        "what FD is taken in: inception (its weights must be in torch.hub's folder), cnn (the judge's own), or auto, "
        "which is inception if it is at hand",
        choices=("auto", "inception", "cnn"),
    )
    resolution: int | None = option(
        None, "side of the data in pixels; none: 16 for the preset, else the model's (Wan: 256)", ge=8
    )
    frames: int | None = option(
        None, "frames of a clip, of models that make clips; none: 5 for the preset, else 17", ge=1
    )


@frozen(kw_only=True)
class QwenVlOptions:
    """Where techniques act in a vision-language model, and how its answers are scored."""

    towers: str = option(
        "both",
        "where techniques act: in the vision tower, the language model, or both",
        choices=("both", "language", "vision"),
    )
    eval_questions: int = option(500, "held-out questions that answers are scored on, at most", ge=2)
    instruction: str = option(
        "Answer the question using a single word or phrase.",
        "what is said after each question, so that a pretrained model answers briefly; may be empty",
    )
    max_pixels: int | None = option(
        None, "larger pictures are scaled down to so many pixels; none: the model's own limit", ge=784
    )
    frames: int = option(
        8, "frames of a clip that the model sees, evenly spread over its time, at most", ge=1
    )
