"""The preset of Qwen2.5-VL: a small model of transformers' classes, with a tokenizer trained on the run's texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import Qwen2_5_VLConfig
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from eflm_plugins.data.tokenizer import train_tokenizer

VOCAB_SIZE = 512
#: Special tokens of Qwen's tokenizers.
START, END, IMAGE, VIDEO, TURN, TURN_END = (
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<|im_start|>",
    "<|im_end|>",
)
#: Qwen's chat format without its system prompt.
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
#: Side of a patch in pixels. Images are scaled to between 4 and 64 merged patches of 16 × 16 pixels.
PATCH = 8


def tokenizer(texts: Sequence[str]) -> Any:
    """Train a byte-level BPE tokenizer on these texts, with Qwen's special tokens and chat format."""
    special = (START, END, IMAGE, VIDEO, TURN, TURN_END)
    found = train_tokenizer([*texts, "user\nassistant\n"], VOCAB_SIZE - len(special))
    found.add_special_tokens({"additional_special_tokens": list(special)})
    found.eos_token, found.chat_template = TURN_END, TEMPLATE
    return found


def image_processor(max_pixels: int | None = None) -> Qwen2VLImageProcessorPil:
    """Return Qwen2-VL's image processor for small patches. Images are scaled to at most `max_pixels` pixels."""
    longest = max_pixels or 128 * 128
    size = {"shortest_edge": min(32 * 32, longest), "longest_edge": longest}
    return Qwen2VLImageProcessorPil(patch_size=PATCH, size=size)


def config(words: Any) -> Qwen2_5_VLConfig:
    """Return the config of the model for the tokenizer `words`: 0.8 million parameters.

    The vision tower has 3 blocks of width 64; the second attends to whole images, the others to windows. The language
    model has 3 blocks of width 128, with 4 heads of size 32 and 2 key-value heads.
    """
    start, end, image, video = words.convert_tokens_to_ids([START, END, IMAGE, VIDEO])
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": VOCAB_SIZE,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 1024,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 6, 6]},
            # 1/√hidden, as in the preset for text.
            "initializer_range": 0.09,
            "bos_token_id": words.bos_token_id,
            "eos_token_id": words.eos_token_id,
            "pad_token_id": words.pad_token_id,
        },
        vision_config={
            "depth": 3,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 2,
            "patch_size": PATCH,
            "window_size": 4 * PATCH,
            "fullatt_block_indexes": [1],
            "out_hidden_size": 128,
            "initializer_range": 0.12,
        },
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
        tie_word_embeddings=True,
    )
