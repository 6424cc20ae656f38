"""Which tokenizer a model works with: its own, or one trained on the run's text. For `llm`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen

from eflm.errors import ModelError
from eflm_plugins.data.tokenizer import train_tokenizer
from eflm_plugins.modalities.nano import VOCAB_SIZE
from eflm_plugins.modalities.pretrained import Pretrained
from eflm_schemas import Flag

#: A trained tokenizer is no larger, however large the model's vocabulary: the text would give it no more merges.
_LARGEST_TRAINED = 32768


@frozen(kw_only=True)
class Vocabulary:
    """A tokenizer, the ids a model has room for, and what the result says of it."""

    tokenizer: Any
    size: int  #: of the model's embedding; the tokenizer's ids are below it
    pad_token_id: int
    name: str


def choose_vocabulary(pretrained: Pretrained | None, texts: Sequence[str], flags: list[Flag]) -> Vocabulary:
    """The model's own tokenizer where it brings one; otherwise a BPE trained on `texts`, and a flag.

    Raises ModelError when the tokenizer knows more tokens than the model.
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
                    detail=f"{pretrained.model} brings no tokenizer, so one was trained on the run's text;"
                    " pretrained weights do not know its tokens",
                )
            )
        elif len(tokenizer) > size:
            raise ModelError(
                f"--model {pretrained.model}: its tokenizer has {len(tokenizer)} tokens and the model knows {size};"
                " put the tokenizer that it was trained with into the folder"
            )
    # A model without a padding token pads with its end of sequence: the mask and the labels leave both out.
    pad = next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)
    return Vocabulary(
        tokenizer=tokenizer, size=size, pad_token_id=pad, name=f"{name}, {len(tokenizer)} tokens"
    )
