"""The cards of the modalities, presets included. Read by the registry; imports no implementation."""

from __future__ import annotations

from eflm_schemas import AttentionGeometry, ModalityCard, Preset, Ref

#: Stage options that are lengths of text, which these models know nothing of.
TEXT_ONLY = (
    "pretrain.sequence_length",
    "finetune.sequence_length",
    "infer.prompt_tokens",
    "infer.new_tokens",
)
#: Sixteen tokens a picture, and sizes that fit them; trained to recognisable digits in about a minute on two cores.
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
#: The published shapes see 256 tokens a picture at most, a sequence short enough for small blocks.
PUBLISHED_SETTINGS = {
    "dit.eval_samples": 100,
    "infer.batch_size": 4,
}

#: A text-to-picture or text-to-clip model in small; its autoencoder is trained when it is first needed, and kept.
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
    """FLOW_SETTINGS with the family's own options, and `stage__option` for what differs between families."""
    own = {f"{name}.denoising_steps": 12, f"{name}.guidance_scale": guidance_scale}
    return {**own, **FLOW_SETTINGS, **{key.replace("__", "."): value for key, value in settings.items()}}


#: Pictures of 16 merged patches and a short question each; windows of the vision tower have 16 patches, pictures 64.
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
        summary="class-conditional diffusion transformers: diffusers' DiTTransformer2DModel, on pictures",
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
                summary="DiT of 1.1 million parameters on 8 × 8 digits: 3 blocks, 128 wide, 4 heads, patches of 2",
                settings=NANO_SETTINGS,
                geometry=_geometry(128, heads=4, head_dim=32, layers=3, tokens=16),
            ),
            Preset(
                name="dit-b-4",
                summary="DiT-B/4's shape on 32 × 32 pictures: 12 blocks, 768 wide, 12 heads",
                settings=PUBLISHED_SETTINGS,
                geometry=_geometry(768, heads=12, head_dim=64, layers=12, tokens=64),
            ),
            Preset(
                name="dit-l-8",
                summary="DiT-L/8's shape on 32 × 32 pictures: 24 blocks, 1024 wide, 16 heads",
                settings=PUBLISHED_SETTINGS,
                geometry=_geometry(1024, heads=16, head_dim=64, layers=24, tokens=16),
            ),
            Preset(
                name="dit-xl-2",
                summary="DiT-XL/2's shape on 32 × 32 pictures: 28 blocks, 1152 wide, 16 heads",
                settings=PUBLISHED_SETTINGS,
                geometry=_geometry(1152, heads=16, head_dim=72, layers=28, tokens=256),
            ),
        ),
    ),
    ModalityCard(
        name="sd3.5",
        summary="Stable Diffusion 3.5: diffusers' StableDiffusion3Pipeline, techniques in its joint attention",
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
                summary="SD 3.5 in small on captioned digits of 16 × 16: 3 joint blocks, 64 wide, three text encoders",
                settings=_flow_settings("sd3.5", 2.0, pretrain__steps=800),
                geometry=_geometry(64, heads=4, head_dim=16, layers=3, tokens=64),
            ),
        ),
    ),
    ModalityCard(
        name="wan2.1",
        summary="Wan 2.1, text to video: diffusers' WanPipeline, techniques in its self-attention",
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
                summary="Wan 2.1 in small on clips of moving digits, 5 frames of 16 × 16: 3 blocks, 64 wide",
                settings=_flow_settings(
                    "wan2.1",
                    4.0,
                    pretrain__steps=900,
                    pretrain__learning_rate=7e-3,
                    finetune__learning_rate=5e-3,
                    geometry=_geometry(64, heads=4, head_dim=16, layers=3, tokens=64),
                ),
            ),
        ),
    ),
    ModalityCard(
        name="qwen2.5-vl",
        summary="Qwen2.5-VL on questions about pictures: transformers' Qwen2_5_VLForConditionalGeneration",
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
                summary="Qwen2.5-VL of 0.8 million parameters on easy-VQA: 3 blocks of vision, 3 of language",
                settings=VL_SETTINGS,
                geometry=_geometry(128, heads=4, head_dim=32, layers=6, tokens=64, key_value_heads=2),
            ),
        ),
    ),
)
