"""Counting models: parameters as they are meant, bytes as they are stored."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eflm.worker.model import compute_dtype, count, stored_bytes


def test_parameters_bytes_and_what_is_trained():
    model = nn.Sequential(nn.Linear(10, 4), nn.BatchNorm1d(4))
    model[0].requires_grad_(False)
    facts = count(model)
    assert facts.parameters == 44 + 8
    assert facts.trainable_parameters == 8
    # Two running statistics of four floats, and a counter of eight bytes.
    assert facts.bytes == 4 * (44 + 8) + 2 * 4 * 4 + 8


def test_a_shared_weight_counts_once():
    model = nn.Sequential(nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False))
    model[1].weight = model[0].weight
    assert (count(model).parameters, count(model).bytes) == (36, 144)


def test_half_precision_is_half_the_bytes():
    model = nn.Linear(8, 8)
    whole = stored_bytes(model)
    assert stored_bytes(model.to(torch.bfloat16)) * 2 == whole
    assert compute_dtype(model) == "bfloat16"


def test_the_dtype_is_that_of_most_of_the_weights():
    model = nn.Sequential(nn.Linear(64, 64).to(torch.float16), nn.LayerNorm(64))
    assert compute_dtype(model) == "float16"
    assert compute_dtype(nn.Identity()) == "float32"


def test_four_bit_weights_count_whole_and_weigh_a_half_byte_and_their_scales():
    bitsandbytes = pytest.importorskip("bitsandbytes")
    dense = nn.Linear(128, 64, bias=False)
    layer = bitsandbytes.nn.Linear4bit(
        128, 64, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4", compress_statistics=False
    )
    layer.load_state_dict(dense.state_dict())
    layer.to("cpu")
    facts = count(layer)
    assert facts.parameters == 128 * 64
    blocks = 128 * 64 // 64
    assert 128 * 64 // 2 + 4 * blocks <= facts.bytes <= 128 * 64 // 2 + 4 * blocks + 4 * 16 + 64
    assert compute_dtype(layer) == "bfloat16"
