"""The tokenizers and text encoders of the presets: tokens of captions, and embeddings that differ between captions."""

from __future__ import annotations

import pytest
import torch
from transformers import T5Tokenizer

from eflm_vision.modalities import nano_text

CAPTIONS = ("the digit seven moving left", "the digit seven moving right", "a teal circle")


def test_words_of_captions_are_tokens_and_other_words_are_split(tmp_path):
    tokenizer = nano_text.t5_tokenizer(CAPTIONS)
    assert tokenizer.tokenize(CAPTIONS[0]) == ["▁the", "▁digit", "▁seven", "▁moving", "▁left"]
    assert tokenizer.tokenize("the digits") == ["▁the", "▁digit", "s"]
    assert tokenizer.tokenize("owl") == ["▁", "o", "w", "l"]
    assert tokenizer.unk_token_id not in tokenizer("an owl, 3.5").input_ids
    tokenizer.save_pretrained(tmp_path)
    assert T5Tokenizer.from_pretrained(tmp_path)(list(CAPTIONS)) == tokenizer(list(CAPTIONS))


@pytest.mark.parametrize("encoder", [nano_text.t5_encoder, nano_text.umt5_encoder])
def test_captions_that_differ_in_a_word_differ_most_at_its_position(encoder):
    tokenizer = nano_text.t5_tokenizer(CAPTIONS)
    model = encoder(len(tokenizer), 16, seed=0)
    tokens = tokenizer(list(CAPTIONS), padding=True, return_tensors="pt")
    first, second, third = model(**tokens).last_hidden_state
    assert not any(p.requires_grad for p in model.parameters())
    distances = (first - second).norm(dim=-1)
    assert distances[4] == distances.max() > 0.1, "left and right"
    assert (first - third).norm() > 0.1
    again = encoder(len(tokenizer), 16, seed=0)(**tokens).last_hidden_state
    torch.testing.assert_close(again[0], first)
