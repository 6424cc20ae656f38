"""Batches have the right tokens and shapes, and equal seeds give equal batches."""

from __future__ import annotations

import copy
from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eflm import DataError
from eflm_plugins.data.batches import (
    IGNORED,
    TokenPair,
    collate,
    packed,
    prompts,
    sequences,
    shuffled,
    token_pairs,
    token_stream,
)
from eflm_plugins.data.corpus import Pair
from eflm_plugins.data.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["ab" * 10], 259)


def test_each_text_ends_with_the_end_token(tokenizer):
    a, b = (tokenizer(c, add_special_tokens=False)["input_ids"][0] for c in "ab")
    assert token_stream(tokenizer, ["ab", "b"]).tolist() == [a, b, 2, b, 2]
    assert token_stream(tokenizer, []).tolist() == []


@given(st.integers(8, 200), st.integers(1, 8), st.integers(1, 5), st.integers(0, 9))
def test_packed_rows_are_contiguous_parts_of_the_stream(tokens, length, batch_size, seed):
    batches = list(islice(packed(torch.arange(tokens), batch_size=batch_size, length=length, seed=seed), 5))
    for batch in batches:
        assert batch.shape == (batch_size, length)
        assert (batch == batch[:, :1] + torch.arange(length)).all()
    again = islice(packed(torch.arange(tokens), batch_size=batch_size, length=length, seed=seed), 5)
    assert all(torch.equal(a, b) for a, b in zip(batches, again, strict=True))


def test_one_pass_repeats_no_row():
    rows = torch.cat(list(islice(packed(torch.arange(1000), batch_size=9, length=10, seed=0), 11)))
    assert len(rows[:, 0].unique()) == len(rows)


def test_different_seeds_give_different_batches():
    first, other = (next(packed(torch.arange(1000), batch_size=4, length=10, seed=seed)) for seed in (0, 1))
    assert not torch.equal(first, other)


def test_a_text_shorter_than_one_sequence_is_refused():
    with pytest.raises(DataError, match=r"\b9 tokens.*\b10\b.*pretrain\.sequence_length"):
        next(packed(torch.arange(9), batch_size=1, length=10, seed=0))


@pytest.mark.parametrize(
    ("tokens", "limit", "starts"), [(100, 100, 10), (100, 35, 3), (105, 1000, 10), (7, 100, 1)]
)
def test_held_out_sequences_are_spread_evenly_within_the_limit(tokens, limit, starts):
    rows = sequences(torch.arange(tokens), 10, limit)
    assert len(rows) == starts
    assert len(rows[:, 0].unique()) == starts
    if starts == 3:
        assert rows[:, 0].tolist() == [0, 30, 60]


def test_the_loss_covers_completions_only():
    batch = collate([TokenPair([5, 6], [7, 8, 2]), TokenPair([5], [9, 2])], pad_token_id=0)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 2], [5, 9, 2, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    x = IGNORED
    assert batch["labels"].tolist() == [[x, x, 7, 8, 2], [x, 9, 2, x, x]]


def test_padding_with_the_end_token_keeps_the_label_of_the_real_end():
    batch = collate([TokenPair([5, 6], [7, 8, 2]), TokenPair([5], [9, 2])], pad_token_id=2)
    assert batch["labels"][1].tolist() == [IGNORED, 9, 2, IGNORED, IGNORED]


def test_long_pairs_are_truncated_and_keep_both_parts(tokenizer):
    a, b = (tokenizer(c, add_special_tokens=False)["input_ids"][0] for c in "ab")
    (pair,) = token_pairs(tokenizer, [Pair("d", "a" * 9 + "b", "b" * 20)], 8)
    assert pair == TokenPair([a, a, a, b], [b, b, b, b])
    (short,) = token_pairs(tokenizer, [Pair("d", "", "ab")], 8)
    assert short == TokenPair([1], [a, b, 2])


def test_every_pair_occurs_once_per_pass():
    pairs = [TokenPair([1], [i]) for i in range(7)]
    drawn = [pair for batch in islice(shuffled(pairs, batch_size=3, seed=0), 7) for pair in batch]
    for begin in (0, 7, 14):
        assert sorted(p.completion[0] for p in drawn[begin : begin + 7]) == list(range(7))


@pytest.mark.parametrize("length", [4, 10, 25])
def test_prompts_have_exactly_the_requested_length(length):
    first, second = islice(prompts(torch.arange(10), batch_size=3, length=length, seed=0), 2)
    assert first.shape == second.shape == (3, length)
    assert (first[:, 1:] == (first[:, :-1] + 1) % 10).all()


def test_without_a_start_token_the_first_token_becomes_the_prompt(tokenizer):
    a, b = (tokenizer(c, add_special_tokens=False)["input_ids"][0] for c in "ab")
    bare = copy.deepcopy(tokenizer)
    bare.bos_token = None
    (pair,) = token_pairs(bare, [Pair("d", "", "aab")], 16)
    assert (pair.prompt, pair.completion) == ([a], [a, b, bare.eos_token_id])
    (pair,) = token_pairs(tokenizer, [Pair("d", "", "aab")], 16)
    assert (pair.prompt, pair.completion) == ([tokenizer.bos_token_id], [a, a, b, tokenizer.eos_token_id])
