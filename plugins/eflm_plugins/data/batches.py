"""Token batches: packed sequences for pretraining, padded pairs for fine-tuning, prompts of exact length for inference.

The language modality calls these functions. Equal seeds give equal batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import torch
from attrs import frozen
from torch import Tensor

from eflm.errors import DataError
from eflm_plugins.data.corpus import Pair

T = TypeVar("T")

#: Label of the positions that the loss ignores, as in torch's cross entropy and transformers.
IGNORED = -100


def encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of each text, without special tokens."""
    if not texts:
        return []
    # verbose=False: texts longer than the model's context are expected, because they are cut into sequences later.
    return tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)[
        "input_ids"
    ]


def token_stream(tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """Return the token ids of all texts as one 1-D tensor, with an end-of-sequence token after each text."""
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    rows = encode(tokenizer, texts)
    return torch.tensor([token for row in rows for token in (*row, *end)], dtype=torch.long)


def sequences(stream: Tensor, length: int, limit: int) -> Tensor:
    """Return sequences of `length` tokens, evenly spread over the stream, as (rows, length).

    The total is at most `limit` tokens, but at least one row. A stream shorter than `length` gives one shorter row.
    """
    length = min(length, len(stream))
    if length == 0:
        return stream.view(0, 0)
    whole = stream[: len(stream) // length * length].view(-1, length)
    count = max(1, min(len(whole), limit // length))
    return whole[torch.arange(count) * len(whole) // count]


def packed(stream: Tensor, *, batch_size: int, length: int, seed: int) -> Iterator[Tensor]:
    """Yield batches (batch, length) indefinitely.

    Each pass over the stream cuts it into sequences at a new random offset and shuffles them. Raises DataError if the
    stream is shorter than one sequence.
    """
    if len(stream) < length:
        raise DataError(
            f"the training text has {len(stream)} tokens, but one pretraining sequence needs {length};"
            " provide more text, or lower pretrain.sequence_length"
        )
    generator = torch.Generator().manual_seed(seed)
    rows = torch.empty(0, length, dtype=torch.long)
    while True:
        while len(rows) < batch_size:
            slack = min(len(stream) - length, length - 1)
            offset = int(torch.randint(slack + 1, (), generator=generator))
            count = (len(stream) - offset) // length
            cut = stream[offset : offset + count * length].view(count, length)
            rows = torch.cat([rows, cut[torch.randperm(count, generator=generator)]])
        yield rows[:batch_size].clone()
        rows = rows[batch_size:]


@frozen
class TokenPair:
    """A pair as token ids; the completion ends with the end-of-sequence token unless it was truncated."""

    prompt: list[int]
    completion: list[int]


def token_pairs(tokenizer: Any, pairs: Sequence[Pair], length: int) -> list[TokenPair]:
    """Tokenize the pairs and truncate each to `length` tokens.

    A prompt keeps at most its last `length // 2` tokens; a completion keeps its first tokens.
    """
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    encoded = zip(
        encode(tokenizer, [pair.prompt for pair in pairs]),
        encode(tokenizer, [pair.completion for pair in pairs]),
        strict=True,
    )
    cut = []
    for prompt, completion in encoded:
        # The first token of a sequence is never predicted. A pair without a prompt therefore gets a start token as its
        # prompt, or its own first token if the tokenizer has no start token.
        prompt, completion = prompt[-(length // 2) :] if prompt else start, [*completion, *end]
        if not prompt:
            prompt, completion = completion[:1], completion[1:]
        cut.append(TokenPair(prompt, completion[: length - len(prompt)]))
    return cut


def shuffled(samples: Sequence[T], *, batch_size: int, seed: int) -> Iterator[list[T]]:
    """Yield batches of samples indefinitely, in a new random order for each pass."""
    generator = torch.Generator().manual_seed(seed)
    waiting: list[T] = []
    while True:
        while len(waiting) < batch_size:
            waiting += [samples[i] for i in torch.randperm(len(samples), generator=generator).tolist()]
        yield waiting[:batch_size]
        waiting = waiting[batch_size:]


def collate(pairs: Sequence[TokenPair], pad_token_id: int) -> dict[str, Tensor]:
    """Return `input_ids`, `attention_mask` and `labels`, each (batch, longest pair), padded on the right.

    Labels of prompts and padding are IGNORED, so the loss covers completions only.
    """
    longest = max(len(p.prompt) + len(p.completion) for p in pairs)
    input_ids = torch.full((len(pairs), longest), pad_token_id, dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    labels = torch.full_like(input_ids, IGNORED)
    for row, pair in enumerate(pairs):
        begin, end = len(pair.prompt), len(pair.prompt) + len(pair.completion)
        input_ids[row, :end] = torch.tensor(pair.prompt + pair.completion)
        attention_mask[row, :end] = 1
        labels[row, begin:end] = input_ids[row, begin:end]
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


def prompts(stream: Tensor, *, batch_size: int, length: int, seed: int) -> Iterator[Tensor]:
    """Yield prompts (batch, length) indefinitely, from random positions in the stream; a short stream is repeated."""
    if len(stream) == 0:
        raise DataError("there is no held-out text to take prompts from; provide more text with --data")
    if len(stream) < length:
        stream = stream.repeat(-(-length // len(stream)))
    generator = torch.Generator().manual_seed(seed)
    while True:
        begins = torch.randint(len(stream) - length + 1, (batch_size,), generator=generator).tolist()
        yield torch.stack([stream[begin : begin + length] for begin in begins])
