"""Text encoders for the presets: transformers' own classes, a few thousand parameters each, with tokenizers of letters.

Their weights are random and stay so, as pipelines keep theirs frozen. What they make of two captions differs, which
is all that a denoiser needs to tell captions apart.
"""

from __future__ import annotations

import string

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
#: Tokens of a caption, padding included.
LENGTH = 32


def clip_tokenizer() -> CLIPTokenizer:
    """A token for each letter, and one for each that ends a word, as CLIP's own has them."""
    tokens = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=LENGTH)


def t5_tokenizer() -> T5Tokenizer:
    """A unigram vocabulary of letters, as T5's is of words."""
    tokens = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((c, -2.0) for c in LETTERS)]
    return T5Tokenizer(vocab=tokens, extra_ids=0, model_max_length=LENGTH)


def clip_encoder(hidden: int, seed: int) -> CLIPTextModelWithProjection:
    """Two blocks of CLIP's text tower."""
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


def t5_encoder(hidden: int, seed: int) -> T5EncoderModel:
    """One block of T5's encoder."""
    return _frozen(T5EncoderModel, T5Config(**_t5_sizes(hidden)), seed)


def umt5_encoder(hidden: int, seed: int) -> UMT5EncoderModel:
    """One block of UMT5's encoder."""
    return _frozen(UMT5EncoderModel, UMT5Config(**_t5_sizes(hidden)), seed)


def _t5_sizes(hidden: int) -> dict[str, int]:
    return {
        "vocab_size": len(t5_tokenizer()),
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
