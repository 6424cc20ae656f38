"""Compares the time of the MoE layer with a dense MLP of the same active operations, and with transformers."""

from __future__ import annotations

import pytest
import torch
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

from eflm_plugins.moe.layer import GatedMlp, MoeLayer
from eflm_plugins.moe.options import TopKOptions
from eflm_plugins.moe.topk import TopKRouter
from eflm_schemas import MlpGeometry
from support.ratios import ratio

WIDTH, EXPERT, EXPERTS, TOP_K = 256, 512, 8, 2


def ours():
    torch.manual_seed(0)
    geometry = MlpGeometry(hidden_size=WIDTH, intermediate_size=EXPERT, layer_idx=0)
    return MoeLayer(geometry, TopKRouter(geometry, TopKOptions(num_experts=EXPERTS, top_k=TOP_K)))


def training(module, tokens):
    return lambda: module(tokens).sum().backward()


def tokens_for(benchmark):
    return torch.randn(1, 64 if benchmark.disabled else 1024, WIDTH, requires_grad=True)


def test_experts_against_a_dense_mlp_of_the_same_active_operations(benchmark):
    tokens = tokens_for(benchmark)
    geometry = MlpGeometry(hidden_size=WIDTH, intermediate_size=TOP_K * EXPERT, layer_idx=0)
    dense = GatedMlp(geometry, TOP_K * EXPERT)
    found = ratio(benchmark, training(ours(), tokens), training(dense, tokens), rounds=15)
    assert found is None or found <= 1.5


@pytest.mark.parametrize("implementation", ["eager", "grouped_mm"])
def test_experts_against_transformers(benchmark, implementation):
    """`batched_mm` is not compared: it copies the weights of an expert for each token and takes 100 times as long."""
    tokens = tokens_for(benchmark)
    config = MixtralConfig(
        hidden_size=WIDTH, intermediate_size=EXPERT, num_local_experts=EXPERTS, num_experts_per_tok=TOP_K
    )
    config._experts_implementation = implementation
    theirs = MixtralSparseMoeBlock(config)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    found = ratio(benchmark, training(ours(), tokens), training(theirs, tokens), rounds=15)
    assert found is None or found <= 1.2
