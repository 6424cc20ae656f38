"""The preset `nano`: a Qwen2 decoder of transformers that is small enough to train in seconds on a CPU."""

from __future__ import annotations

from transformers import Qwen2Config

#: Vocabulary size of the tokenizer that is trained for the preset.
VOCAB_SIZE = 4096


def nano_config(*, pad_token_id: int, bos_token_id: int, eos_token_id: int) -> Qwen2Config:
    """Return the config: 2.4 million parameters, 4 blocks of hidden size 192, 6 heads of size 32, 2 key-value heads."""
    return Qwen2Config(
        vocab_size=VOCAB_SIZE,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        # 1/√hidden. The 0.02 of large models is too small here: the first steps would only enlarge the weights.
        initializer_range=0.07,
        pad_token_id=pad_token_id,
        bos_token_id=bos_token_id,
        eos_token_id=eos_token_id,
    )
