"""The trained tokenizer encodes any text without loss, and equal texts give equal tokenizers."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, LlamaConfig, Qwen2Config

from eflm import DataError, cache
from eflm_plugins.data.tokenizer import train_tokenizer

TEXTS = ["the quick brown fox jumps over the lazy dog " * 3, "pack my box with five dozen liquor jugs " * 3]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "user_cache_dir", lambda _name: str(folder))
        yield train_tokenizer(TEXTS, 300)


@settings(max_examples=50)
@given(st.text())
def test_decoding_restores_every_text(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
    assert all(0 <= token < 300 for token in ids)


def test_special_tokens_have_fixed_ids(tokenizer):
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)


def test_it_compresses_its_training_text(tokenizer):
    assert len(tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"]) < len(TEXTS[0]) / 2


def test_another_process_trains_the_same_tokenizer(tokenizer, tmp_path):
    code = (
        "from eflm_plugins.data.tokenizer import train_tokenizer\n"
        f"print(sorted(train_tokenizer({TEXTS!r}, 300).get_vocab().items()))"
    )
    env = {**os.environ, "PYTHONHASHSEED": "7", "XDG_CACHE_HOME": str(tmp_path)}
    found = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str(sorted(tokenizer.get_vocab().items()))


def test_a_damaged_cache_changes_nothing(tmp_path, monkeypatch, tokenizer):
    monkeypatch.setattr(cache, "user_cache_dir", lambda _name: str(tmp_path))
    train_tokenizer(TEXTS, 300)
    (file,) = (file for file in tmp_path.iterdir() if file.suffix != ".lock")
    file.write_bytes(file.read_bytes()[:-20])
    assert train_tokenizer(TEXTS, 300).get_vocab() == tokenizer.get_vocab()


@pytest.mark.parametrize("config", [Qwen2Config, LlamaConfig])
def test_transformers_loads_the_same_tokenizer_from_the_folder_of_a_model(config, tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    config().save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded.all_special_tokens == tokenizer.all_special_tokens
    text = "The quick fox isn't 42 years old:\n\n  it's lazy_dog() == 3.5!  <eos>"
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_too_small_a_vocabulary_is_refused():
    with pytest.raises(DataError, match=r"\b100\b.*\b259 tokens"):
        train_tokenizer(TEXTS, 100)
