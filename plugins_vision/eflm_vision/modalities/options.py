"""The options of the modalities, set with for example `--set dit.denoising_steps=50`. Must not import torch."""

from __future__ import annotations

from attrs import frozen

from eflm_schemas import option


@frozen(kw_only=True)
class DitOptions:
    """Options for the generation and evaluation of images with dit."""

    denoising_steps: int = option(25, "DDIM steps per image", ge=1, le=1000)
    guidance_scale: float = option(
        2.0,
        "scale of classifier-free guidance; 1: no guidance, one model evaluation per step instead of two",
        ge=1,
    )
    label_dropout: float = option(
        0.1, "share of training images whose class is dropped, for classifier-free guidance", ge=0, lt=1
    )
    eval_samples: int = option(200, "number of images generated to evaluate quality", ge=10)
    features: str = option(
        "auto",
        "features for FD: inception (its weights must be in torch.hub's folder), cnn (the judge's), or auto (inception "
        "if its weights are installed, else cnn)",
        choices=("auto", "inception", "cnn"),
    )


@frozen(kw_only=True)
class FlowOptions:
    """Options for the generation and evaluation of images and clips with sd3.5 and wan2.1."""

    denoising_steps: int = option(28, "steps of the pipeline's scheduler per image or clip", ge=1, le=1000)
    guidance_scale: float = option(
        4.5,
        "scale of classifier-free guidance; 1: no guidance, one model evaluation per step instead of two",
        ge=1,
    )
    caption_dropout: float = option(
        0.1, "share of training samples whose caption is dropped, for classifier-free guidance", ge=0, lt=1
    )
    eval_samples: int = option(80, "number of images or clips generated to evaluate quality", ge=10)
    features: str = option(
        "auto",
        "features for FD: inception (its weights must be in torch.hub's folder), cnn (the judge's), or auto (inception "
        "if its weights are installed, else cnn)",
        choices=("auto", "inception", "cnn"),
    )
    resolution: int | None = option(
        None, "side of the images in pixels; none: 16 for the preset, else that of the model (Wan: 256)", ge=8
    )
    frames: int | None = option(
        None, "frames per clip, for video models; none: 5 for the preset, else 17", ge=1
    )


@frozen(kw_only=True)
class QwenVlOptions:
    """Options for the placement of techniques in qwen2.5-vl, its inputs, and the evaluation of its answers."""

    towers: str = option(
        "both",
        "parts that get the techniques: the vision tower, the language model, or both",
        choices=("both", "language", "vision"),
    )
    eval_questions: int = option(500, "maximum number of held-out questions to evaluate answers on", ge=2)
    instruction: str = option(
        "Answer the question using a single word or phrase.",
        "text appended to each question, so that a pretrained model answers briefly; may be empty",
    )
    max_pixels: int | None = option(
        None, "larger images are scaled down to this number of pixels; none: the limit of the model", ge=784
    )
    frames: int = option(8, "maximum number of frames per clip, evenly spaced in time", ge=1)
