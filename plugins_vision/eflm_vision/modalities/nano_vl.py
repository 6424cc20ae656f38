"""The preset of Qwen2.5-VL: transformers' own classes in small, with a tokenizer of the run's questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import Qwen2_5_VLConfig
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from eflm_plugins.data.tokenizer import train_tokenizer

VOCAB_SIZE = 512
#: The tokens that Qwen's tokenizers have beside words, in this order.
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
#: Pixels of a patch's side. Pictures are scaled to between 4 and 64 merged patches of 16 × 16.
PATCH = 8


def tokenizer(texts: Sequence[str]) -> Any:
    """A byte-level BPE of these texts, with Qwen's special tokens and chat format."""
    special = (START, END, IMAGE, VIDEO, TURN, TURN_END)
    found = train_tokenizer([*texts, "user\nassistant\n"], VOCAB_SIZE - len(special))
    found.add_special_tokens({"additional_special_tokens": list(special)})
    found.eos_token, found.chat_template = TURN_END, TEMPLATE
    return found


def image_processor(max_pixels: int | None = None) -> Qwen2VLImageProcessorPil:
    """Qwen2-VL's, for small patches. Pictures are scaled to at most so many pixels."""
    longest = max_pixels or 128 * 128
    size = {"shortest_edge": min(32 * 32, longest), "longest_edge": longest}
    return Qwen2VLImageProcessorPil(patch_size=PATCH, size=size)


def config(words: Any) -> Qwen2_5_VLConfig:
    """Of the model that goes with the tokenizer `words`: 0.8 million parameters.

    A vision tower of 3 blocks, 64 wide, the second of which sees whole pictures, and a language model of 3 blocks, 128
    wide, 4 heads of 32 on 2 key-value heads.
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
            # 1/√hidden, as for the preset of text.
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
