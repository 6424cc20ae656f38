"""The preset `nano`: a Qwen2 decoder, by transformers' own classes, small enough to train in seconds on a CPU."""

from __future__ import annotations

from transformers import Qwen2Config

#: Tokens of the tokenizer that is trained for it.
VOCAB_SIZE = 4096


def nano_config(*, pad_token_id: int, bos_token_id: int, eos_token_id: int) -> Qwen2Config:
    """2.4 million parameters: 4 blocks, 192 wide, 6 heads of 32 on 2 key-value heads, tied embeddings."""
    return Qwen2Config(
        vocab_size=VOCAB_SIZE,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        # 1/√hidden: the 0.02 of large models is so small at this width that the first steps go into growing out of it.
        initializer_range=0.07,
        pad_token_id=pad_token_id,
        bos_token_id=bos_token_id,
        eos_token_id=eos_token_id,
    )
