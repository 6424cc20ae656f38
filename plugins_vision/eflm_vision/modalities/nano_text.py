"""Text encoders for the presets: transformers' own classes in small, with tokenizers of letters and words.

A few thousand parameters each. Their weights are random and stay so, as pipelines keep theirs frozen. What they make of
two captions differs, which is all that a denoiser needs to tell captions apart.
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
#: Tokens of a caption, padding included.
LENGTH = 32


def clip_tokenizer() -> CLIPTokenizer:
    """A token for each letter, and one for each that ends a word, as CLIP's own has them."""
    tokens = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=LENGTH)


def t5_tokenizer(captions: Sequence[str] = ()) -> T5Tokenizer:
    """A unigram vocabulary of the captions' words, as T5's is of a language's, and of letters for any other.

    Wan's cross-attention alone has to tell what a caption asks for, and begins by weighing all places alike: so there
    are as many as the longest caption needs, and one tells a digit.
    """
    words = sorted({f"▁{word}" for caption in captions for word in caption.split()})
    pieces = dict.fromkeys(["▁", *LETTERS, *words], -2.0)
    tokens = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *pieces.items()]
    length = max((len(caption.split()) + 1 for caption in captions), default=LENGTH)
    return T5Tokenizer(vocab=tokens, extra_ids=0, model_max_length=length)


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


def t5_encoder(tokens: int, hidden: int, seed: int) -> T5EncoderModel:
    """One block of T5's encoder for a vocabulary of so many tokens."""
    return _frozen(T5EncoderModel, T5Config(**_t5_sizes(tokens, hidden)), seed)


def umt5_encoder(tokens: int, hidden: int, seed: int) -> UMT5EncoderModel:
    """One block of UMT5's encoder."""
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
