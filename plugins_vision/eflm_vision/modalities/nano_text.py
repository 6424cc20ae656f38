"""Text encoders for the presets: small models of transformers' classes, with tokenizers of letters and words.

Each has a few thousand parameters. Their weights are random and frozen, like the text encoders of the pipelines. This
is enough, because different captions get different embeddings.
"""

from __future__ import annotations

import string
from collections.abc import Sequence

import torch
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
    UMT5Config,
    UMT5EncoderModel,
)

LETTERS = string.ascii_lowercase + string.digits + ".,-"
#: Tokens per caption, including padding.
LENGTH = 32


def clip_tokenizer() -> CLIPTokenizer:
    """Return a tokenizer with one token per letter and one per letter at the end of a word, in CLIP's format."""
    tokens = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=LENGTH)


def t5_tokenizer(captions: Sequence[str] = ()) -> T5Tokenizer:
    """Return a T5 tokenizer whose unigram vocabulary has the words of the captions, and letters for other words.

    In Wan, only cross-attention reads the caption, and it starts with equal weights for all tokens. So captions are as
    short as possible: the maximum length is that of the longest caption, and each word, such as a digit, is one token.
    """
    words = sorted({f"▁{word}" for caption in captions for word in caption.split()})
    pieces = dict.fromkeys(["▁", *LETTERS, *words], -2.0)
    tokens = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *pieces.items()]
    length = max((len(caption.split()) + 1 for caption in captions), default=LENGTH)
    return T5Tokenizer(vocab=tokens, extra_ids=0, model_max_length=length)


def clip_encoder(hidden: int, seed: int) -> CLIPTextModelWithProjection:
    """Return a CLIP text encoder with two blocks of width `hidden`."""
    tokenizer = clip_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        projection_dim=hidden,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return _frozen(CLIPTextModelWithProjection, config, seed)


def t5_encoder(tokens: int, hidden: int, seed: int) -> T5EncoderModel:
    """Return a T5 encoder with one block for a vocabulary of `tokens` tokens."""
    return _frozen(T5EncoderModel, T5Config(**_t5_sizes(tokens, hidden)), seed)


def umt5_encoder(tokens: int, hidden: int, seed: int) -> UMT5EncoderModel:
    """Return a UMT5 encoder with one block for a vocabulary of `tokens` tokens."""
    return _frozen(UMT5EncoderModel, UMT5Config(**_t5_sizes(tokens, hidden)), seed)


def _t5_sizes(tokens: int, hidden: int) -> dict[str, int]:
    return {
        "vocab_size": tokens,
        "d_model": hidden,
        "d_kv": hidden // 2,
        "d_ff": 2 * hidden,
        "num_layers": 1,
        "num_heads": 2,
    }


def _frozen(model: type, config: object, seed: int) -> object:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model(config).eval().requires_grad_(False)
