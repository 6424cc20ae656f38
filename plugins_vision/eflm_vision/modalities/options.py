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
