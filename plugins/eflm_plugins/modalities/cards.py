"""The cards of the modalities and their presets. The registry reads this file; it imports no implementation."""

from __future__ import annotations

from eflm_schemas import AttentionGeometry, ModalityCard, Preset, Ref

#: Settings for a model with 2.4 million parameters, so that all three stages take less than a minute on two cores.
NANO_SETTINGS = {
    "llm.eval_tokens": 16384,
    "llm.eval_sequence_length": 256,
    "llm.eval_pairs": 32,
    "pretrain.steps": 220,
    "pretrain.warmup_steps": 2,
    "pretrain.batch_size": 2,
    "pretrain.sequence_length": 256,
    "pretrain.learning_rate": 5e-3,
    "finetune.steps": 20,
    "finetune.warmup_steps": 2,
    "finetune.batch_size": 8,
    "finetune.sequence_length": 128,
    "finetune.learning_rate": 1e-3,
    "infer.requests": 5,
    "infer.warmup_requests": 1,
    "infer.batch_size": 1,
    "infer.prompt_tokens": 256,
    "infer.new_tokens": 32,
}

MODALITIES = (
    ModalityCard(
        name="llm",
        summary="decoder language models on text, loaded by transformers' AutoModelForCausalLM",
        source="https://huggingface.co/docs/transformers/model_doc/auto",
        factory=Ref("eflm_plugins.modalities.llm:LlmModality"),
        config=Ref("eflm_plugins.modalities.options:LlmOptions"),
        requires=("torch", "transformers", "tokenizers"),
        extra="llm",
        default=True,
        identity=Ref("eflm_plugins.modalities.identity:identify"),
        presets=(
            Preset(
                name="nano",
                summary="Qwen2 with 2.4 million parameters: 4 layers, hidden size 192, 6 heads, 2 key-value heads",
                settings=NANO_SETTINGS,
                geometry=AttentionGeometry(
                    hidden_size=192,
                    num_attention_heads=6,
                    num_key_value_heads=2,
                    head_dim=32,
                    layer_idx=0,
                    num_layers=4,
                    tokens=256,
                ),
            ),
        ),
    ),
)
