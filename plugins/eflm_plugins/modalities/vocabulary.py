"""Selects the tokenizer of a model: its own, or one trained on the text of the run. Used by `llm`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen

from eflm.errors import ModelError
from eflm_plugins.data.tokenizer import train_tokenizer
from eflm_plugins.modalities.nano import VOCAB_SIZE
from eflm_plugins.modalities.pretrained import Pretrained
from eflm_schemas import Flag

#: Maximum size of a trained tokenizer; the training text does not contain enough merges for more tokens.
_LARGEST_TRAINED = 32768


@frozen(kw_only=True)
class Vocabulary:
    """A tokenizer and the vocabulary of the model that uses it."""

    tokenizer: Any
    size: int  #: size of the model's embedding; all ids of the tokenizer are smaller
    pad_token_id: int
    name: str  #: description of the tokenizer for the result


def choose_vocabulary(pretrained: Pretrained | None, texts: Sequence[str], flags: list[Flag]) -> Vocabulary:
    """Return the model's own tokenizer if it has one; otherwise train a BPE tokenizer on `texts` and append a flag.

    Raises ModelError if the tokenizer has more tokens than the model's vocabulary.
    """
    if pretrained is None:
        tokenizer, size, name = (
            train_tokenizer(texts, VOCAB_SIZE),
            VOCAB_SIZE,
            "byte-level BPE of the training text",
        )
    else:
        size = pretrained.config.get_text_config().vocab_size
        tokenizer, name = pretrained.tokenizer(), f"{pretrained.model}'s own"
        if tokenizer is None:
            tokenizer = train_tokenizer(texts, min(size, _LARGEST_TRAINED))
            name = "byte-level BPE of the training text"
            flags.append(
                Flag(
                    name="tokenizer_trained",
                    detail=f"{pretrained.model} has no tokenizer, so one was trained on the text of the run;"
                    " pretrained weights were not trained with its tokens",
                )
            )
        elif len(tokenizer) > size:
            raise ModelError(
                f"--model {pretrained.model}: its tokenizer has {len(tokenizer)} tokens, but its vocabulary has only"
                f" {size}; replace the tokenizer in the folder with the one that the model was trained with"
            )
    # Without a padding token, pad with the end-of-sequence token: mask and labels exclude the padding anyway.
    pad = next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)
    return Vocabulary(
        tokenizer=tokenizer, size=size, pad_token_id=pad, name=f"{name}, {len(tokenizer)} tokens"
    )
