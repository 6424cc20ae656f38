"""Trains a byte-level BPE tokenizer on the training text of the run, for models without their own.

The language modality calls this for presets and for saved models without a tokenizer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import tokenizers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from eflm.cache import remember
from eflm.errors import DataError

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
#: 256 bytes and three special tokens: a smaller vocabulary could not encode every text.
SMALLEST_VOCABULARY = 259


def train_tokenizer(texts: Sequence[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a tokenizer of at most `vocab_size` tokens on the texts (Sennrich et al. 2016, on bytes).

    The result is cached under the hash of the texts. Raises DataError if `vocab_size` is too small to hold all bytes.
    """
    if vocab_size < SMALLEST_VOCABULARY:
        raise DataError(
            f"the model has no tokenizer and a vocabulary of {vocab_size}, but training a tokenizer needs at least"
            f" {SMALLEST_VOCABULARY} tokens (256 bytes and 3 special tokens); add its tokenizer to the model"
            " folder, or use a model with a larger vocabulary"
        )
    content = hashlib.sha256(json.dumps(list(texts)).encode("ascii")).hexdigest()
    name = f"bpe-qwen2-{content[:32]}-{vocab_size}-{tokenizers.__version__}"
    trained = remember(name, lambda: _train(texts, vocab_size).to_str().encode("utf-8"))
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(trained.decode("utf-8")),
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=EOS,  # never used; without it, Qwen2Tokenizer adds a token of its own
    )


def _train(texts: Sequence[str], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    # AutoTokenizer loads the tokenizer of every qwen2 model, such as nano, as a Qwen2Tokenizer, which splits text so.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
