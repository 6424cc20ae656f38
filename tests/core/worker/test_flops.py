"""Counted operations against the formulas of the products that ran."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eflm.worker import flops
from eflm_plugins.quantizers.operations import four_bit


def counted(work, operations=None) -> int:
    with flops.counter(operations) as counter:
        work()
    return counter.get_total_flops()


def test_a_product_counts_two_for_each_multiply_and_add():
    left, right = torch.ones(3, 5), torch.ones(5, 7)
    assert counted(lambda: left @ right) == 2 * 3 * 5 * 7


def test_training_a_linear_layer_is_three_products_and_a_frozen_one_two():
    x = torch.ones(4, 6, requires_grad=True)
    layer = nn.Linear(6, 8, bias=False)
    product = 2 * 4 * 6 * 8
    assert counted(lambda: layer(x).sum().backward()) == 3 * product
    layer.requires_grad_(False)
    assert counted(lambda: layer(x).sum().backward()) == 2 * product


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_attention_on_a_cpu_is_counted_as_its_products(gradient, causal):
    batch, heads, queries, keys, width = 2, 3, 16, 16, 8
    q = torch.randn(batch, heads, queries, width, requires_grad=gradient)
    k, v = (torch.randn(batch, heads, keys, width, requires_grad=gradient) for _ in "kv")

    def work():
        out = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
        if gradient:
            out.sum().backward()

    product = 2 * batch * heads * queries * keys * width
    assert counted(work) == product * (7 if gradient else 2)


def test_attention_with_a_mask_and_few_queries_is_counted():
    q, k = torch.randn(1, 2, 1, 4), torch.randn(1, 2, 9, 4)
    mask = torch.ones(1, 1, 1, 9, dtype=torch.bool)
    work = counted(lambda: nn.functional.scaled_dot_product_attention(q, k, k, attn_mask=mask))
    assert work == 2 * 2 * (2 * 1 * 9 * 4)


@pytest.mark.parametrize("tokens", [1, 6])
def test_a_four_bit_product_is_counted_like_a_dense_one(tokens):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    layer = bitsandbytes.nn.Linear4bit(64, 32, bias=False, compute_dtype=torch.float32, quant_type="nf4").to(
        "cpu"
    )
    x = torch.randn(2, tokens, 64)
    with torch.no_grad():
        assert counted(lambda: layer(x), four_bit()) == 2 * 2 * tokens * 64 * 32


def test_training_through_a_four_bit_layer_is_two_products():
    bitsandbytes = pytest.importorskip("bitsandbytes")
    layer = bitsandbytes.nn.Linear4bit(64, 32, bias=False, compute_dtype=torch.float32, quant_type="nf4").to(
        "cpu"
    )
    x = torch.randn(2, 5, 64, requires_grad=True)
    assert counted(lambda: layer(x).sum().backward(), four_bit()) == 2 * (2 * 2 * 5 * 64 * 32)


def test_grouped_products_are_counted_by_row():
    if not hasattr(torch.ops.aten, "_grouped_mm"):
        pytest.skip("this torch has no grouped product")
    rows = torch.ones(6, 16, dtype=torch.bfloat16)
    matrices = torch.ones(2, 16, 8, dtype=torch.bfloat16)
    ends = torch.tensor([2, 6], dtype=torch.int32)
    assert counted(lambda: torch._grouped_mm(rows, matrices, offs=ends)) == 2 * 6 * 16 * 8
