"""The modality cards with their presets. Imports no implementation."""

from __future__ import annotations

from eflm_schemas import AttentionGeometry, ModalityCard, Preset, Ref

#: Stage options for text lengths, which these models do not use.
TEXT_ONLY = (
    "pretrain.sequence_length",
    "finetune.sequence_length",
    "infer.prompt_tokens",
    "infer.new_tokens",
)
#: Sizes for 16 tokens per image. Training gives recognisable digits in about a minute on two cores.
NANO_SETTINGS = {
    "dit.eval_samples": 200,
    "pretrain.steps": 600,
    "pretrain.warmup_steps": 2,
    "pretrain.batch_size": 64,
    "pretrain.learning_rate": 3e-3,
    "pretrain.weight_decay": 0.0,
    "infer.requests": 5,
    "infer.warmup_requests": 1,
    "infer.batch_size": 10,
}
#: The published shapes have at most 256 tokens per image, so the blocks of NSA are small.
PUBLISHED_SETTINGS = {
    "dit.eval_samples": 100,
    "infer.batch_size": 4,
}

#: A small text-to-image or text-to-video model. Its autoencoder is trained on first use and cached.
FLOW_SETTINGS: dict[str, object] = {
    "pretrain.warmup_steps": 2,
    "pretrain.batch_size": 32,
    "pretrain.learning_rate": 3e-3,
    "pretrain.weight_decay": 0.0,
    "finetune.steps": 400,
    "finetune.warmup_steps": 2,
    "finetune.batch_size": 32,
    "finetune.learning_rate": 3e-3,
    "infer.requests": 3,
    "infer.seconds": 5.0,
    "infer.warmup_requests": 1,
    "infer.batch_size": 4,
}


def _flow_settings(name: str, guidance_scale: float, **settings: float) -> dict[str, object]:
    """Return FLOW_SETTINGS with the options of a family; `stage__option` overrides `stage.option`."""
    own = {f"{name}.denoising_steps": 12, f"{name}.guidance_scale": guidance_scale}
    return {**own, **FLOW_SETTINGS, **{key.replace("__", "."): value for key, value in settings.items()}}


#: Sizes for images of 64 patches (16 after merging) with a short question; windows of the vision tower have 16 patches.
VL_SETTINGS: dict[str, object] = {
    "qwen2.5-vl.instruction": "",
    "pretrain.steps": 500,
    "pretrain.warmup_steps": 2,
    "pretrain.batch_size": 32,
    "pretrain.learning_rate": 1e-3,
    "finetune.steps": 300,
    "finetune.warmup_steps": 2,
    "finetune.batch_size": 32,
    "finetune.learning_rate": 3e-3,
    "infer.requests": 5,
    "infer.seconds": 5.0,
    "infer.warmup_requests": 1,
    "infer.batch_size": 1,
    "infer.new_tokens": 16,
}


def _geometry(
    hidden_size: int,
    *,
    heads: int,
    head_dim: int,
    layers: int,
    tokens: int,
    key_value_heads: int | None = None,
) -> AttentionGeometry:
    return AttentionGeometry(
        hidden_size=hidden_size,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads or heads,
        head_dim=head_dim,
        layer_idx=0,
        causal=False,
        num_layers=layers,
        tokens=tokens,
    )


MODALITIES = (
    ModalityCard(
        name="dit",
        summary="class-conditional diffusion transformers on images (diffusers' DiTTransformer2DModel)",
        source="Peebles & Xie 2023, arXiv 2212.09748",
        factory=Ref("eflm_vision.modalities.dit:DitModality"),
        config=Ref("eflm_vision.modalities.options:DitOptions"),
        requires=("torch", "diffusers", "sklearn", "PIL"),
        extra="vision",
        identity=Ref("eflm_plugins.modalities.identity:identify"),
        stages=("pretrain", "infer"),
        causal=False,
        architectures=("DiTPipeline", "DiTTransformer2DModel", "EflmDiTTransformer2DModel"),
        unused_options=TEXT_ONLY,
        presets=(
            Preset(
                name="dit-nano",
                summary="DiT with 1.1 million parameters for 8 × 8 digits: 3 blocks, width 128, 4 heads, patch size 2",
                settings=NANO_SETTINGS,
                geometry=_geometry(128, heads=4, head_dim=32, layers=3, tokens=16),
            ),
            Preset(
                name="dit-b-4",
                summary="shape of DiT-B/4 for 32 × 32 images: 12 blocks, width 768, 12 heads",
                settings=PUBLISHED_SETTINGS,
                geometry=_geometry(768, heads=12, head_dim=64, layers=12, tokens=64),
            ),
            Preset(
                name="dit-l-8",
                summary="shape of DiT-L/8 for 32 × 32 images: 24 blocks, width 1024, 16 heads",
                settings=PUBLISHED_SETTINGS,
                geometry=_geometry(1024, heads=16, head_dim=64, layers=24, tokens=16),
            ),
            Preset(
                name="dit-xl-2",
                summary="shape of DiT-XL/2 for 32 × 32 images: 28 blocks, width 1152, 16 heads",
                settings=PUBLISHED_SETTINGS,
                geometry=_geometry(1152, heads=16, head_dim=72, layers=28, tokens=256),
            ),
        ),
    ),
    ModalityCard(
        name="sd3.5",
        summary="Stable Diffusion 3.5, text to image (diffusers' StableDiffusion3Pipeline); "
        "techniques replace its joint attention",
        source="Esser et al. 2024, arXiv 2403.03206",
        factory=Ref("eflm_vision.modalities.flow:Sd35Modality"),
        config=Ref("eflm_vision.modalities.options:FlowOptions"),
        requires=("torch", "transformers", "diffusers", "sklearn", "PIL"),
        extra="vision",
        identity=Ref("eflm_plugins.modalities.identity:identify"),
        causal=False,
        architectures=("StableDiffusion3Pipeline",),
        unused_options=TEXT_ONLY,
        presets=(
            Preset(
                name="sd3.5-nano",
                summary="small SD 3.5 for captioned 16 × 16 digits: 3 joint blocks, width 64, three text encoders",
                settings=_flow_settings("sd3.5", 2.0, pretrain__steps=800),
                geometry=_geometry(64, heads=4, head_dim=16, layers=3, tokens=64),
            ),
        ),
    ),
    ModalityCard(
        name="wan2.1",
        summary="Wan 2.1, text to video (diffusers' WanPipeline); techniques replace its self-attention",
        source="Wan team 2025, arXiv 2503.20314",
        factory=Ref("eflm_vision.modalities.flow:Wan21Modality"),
        config=Ref("eflm_vision.modalities.options:FlowOptions"),
        requires=("torch", "transformers", "diffusers", "sklearn", "PIL", "av"),
        extra="vision",
        identity=Ref("eflm_plugins.modalities.identity:identify"),
        causal=False,
        architectures=("WanPipeline",),
        unused_options=TEXT_ONLY,
        presets=(
            Preset(
                name="wan2.1-nano",
                summary="small Wan 2.1 for clips of moving digits, 5 frames of 16 × 16: 3 blocks, width 64",
                settings=_flow_settings(
                    "wan2.1",
                    4.0,
                    pretrain__steps=900,
                    pretrain__learning_rate=7e-3,
                    finetune__learning_rate=5e-3,
                ),
                geometry=_geometry(64, heads=4, head_dim=16, layers=3, tokens=64),
            ),
        ),
    ),
    ModalityCard(
        name="qwen2.5-vl",
        summary="Qwen2.5-VL on questions about images and clips (transformers' Qwen2_5_VLForConditionalGeneration)",
        source="Qwen team 2025, arXiv 2502.13923",
        factory=Ref("eflm_vision.modalities.qwen25vl:QwenVlModality"),
        config=Ref("eflm_vision.modalities.options:QwenVlOptions"),
        requires=("torch", "transformers", "PIL"),
        extra="vision",
        identity=Ref("eflm_plugins.modalities.identity:identify"),
        bidirectional_where={"towers": ("both", "vision")},
        architectures=("qwen2_5_vl",),
        unused_options=tuple(option for option in TEXT_ONLY if option != "infer.new_tokens"),
        presets=(
            Preset(
                name="qwen2.5-vl-nano",
                summary="Qwen2.5-VL with 0.8 million parameters for easy-VQA: 3 vision blocks, 3 language blocks",
                settings=VL_SETTINGS,
                geometry=_geometry(128, heads=4, head_dim=32, layers=6, tokens=64, key_value_heads=2),
            ),
        ),
    ),
)
