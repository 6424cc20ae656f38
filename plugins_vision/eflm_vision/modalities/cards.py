"""The cards of the modalities, presets included. Read by the registry; imports no implementation."""

from __future__ import annotations

from eflm_schemas import ModalityCard, Preset, Ref

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
    "gqa.num_key_value_heads": 2,
    "mla.kv_lora_rank": 64,
    "mla.qk_nope_head_dim": 32,
    "mla.qk_rope_head_dim": 16,
    "mla.v_head_dim": 32,
    "nsa.compress_block_size": 2,
    "nsa.compress_stride": 1,
    "nsa.select_block_size": 2,
    "nsa.num_selected_blocks": 4,
    "nsa.window": 4,
    "topk.num_experts": 4,
    "topk.top_k": 2,
}
#: The published shapes see 256 tokens a picture at most, a sequence short enough for small blocks.
PUBLISHED_SETTINGS = {
    "dit.eval_samples": 100,
    "infer.batch_size": 4,
    "nsa.compress_block_size": 8,
    "nsa.compress_stride": 4,
    "nsa.select_block_size": 16,
    "nsa.num_selected_blocks": 4,
    "nsa.window": 32,
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
    "freeze.num_frozen_layers": 1,
    "gqa.num_key_value_heads": 2,
    "mla.kv_lora_rank": 32,
    "mla.qk_nope_head_dim": 16,
    "mla.qk_rope_head_dim": 16,
    "mla.v_head_dim": 16,
    "nsa.compress_block_size": 4,
    "nsa.compress_stride": 2,
    "nsa.select_block_size": 4,
    "nsa.num_selected_blocks": 4,
    "nsa.window": 8,
    "topk.num_experts": 4,
    "topk.top_k": 2,
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
    "freeze.num_frozen_layers": 3,
    "mla.kv_lora_rank": 32,
    "mla.qk_nope_head_dim": 16,
    "mla.qk_rope_head_dim": 16,
    "mla.v_head_dim": 16,
    "nsa.compress_block_size": 4,
    "nsa.compress_stride": 2,
    "nsa.select_block_size": 4,
    "nsa.num_selected_blocks": 4,
    "nsa.window": 8,
    "topk.num_experts": 4,
    "topk.top_k": 2,
}

MODALITIES = (
    ModalityCard(
        name="dit",
        summary="class-conditional diffusion transformers: diffusers' DiTTransformer2DModel, on pictures",
        source="Peebles & Xie 2023, arXiv 2212.09748",
        factory=Ref("eflm_vision.modalities.dit:DitModality"),
        config=Ref("eflm_vision.modalities.options:DitOptions"),
        requires=("torch", "diffusers", "sklearn", "PIL"),
        extra="vision",
        stages=("pretrain", "infer"),
        causal=False,
        architectures=("DiTPipeline", "DiTTransformer2DModel", "EflmDiTTransformer2DModel"),
        unused_options=TEXT_ONLY,
        presets=(
            Preset(
                name="dit-nano",
                summary="DiT of 1.1 million parameters on 8 × 8 digits: 3 blocks, 128 wide, 4 heads, patches of 2",
                settings=NANO_SETTINGS,
            ),
            Preset(
                name="dit-b-4",
                summary="DiT-B/4's shape on 32 × 32 pictures: 12 blocks, 768 wide, 12 heads",
                settings=PUBLISHED_SETTINGS,
            ),
            Preset(
                name="dit-l-8",
                summary="DiT-L/8's shape on 32 × 32 pictures: 24 blocks, 1024 wide, 16 heads",
                settings={**PUBLISHED_SETTINGS, **{k: v for k, v in NANO_SETTINGS.items() if "nsa." in k}},
            ),
            Preset(
                name="dit-xl-2",
                summary="DiT-XL/2's shape on 32 × 32 pictures: 28 blocks, 1152 wide, 16 heads",
                settings=PUBLISHED_SETTINGS,
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
        causal=False,
        architectures=("StableDiffusion3Pipeline",),
        unused_options=TEXT_ONLY,
        presets=(
            Preset(
                name="sd3.5-nano",
                summary="SD 3.5 in small on captioned digits of 16 × 16: 3 joint blocks, 64 wide, three text encoders",
                settings=_flow_settings("sd3.5", 2.0, pretrain__steps=800),
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
        bidirectional_where={"towers": ("both", "vision")},
        architectures=("qwen2_5_vl",),
        unused_options=tuple(option for option in TEXT_ONLY if option != "infer.new_tokens"),
        presets=(
            Preset(
                name="qwen2.5-vl-nano",
                summary="Qwen2.5-VL of 0.8 million parameters on easy-VQA: 3 blocks of vision, 3 of language",
                settings=VL_SETTINGS,
            ),
        ),
    ),
)
