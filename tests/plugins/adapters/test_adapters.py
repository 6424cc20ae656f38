"""Every adapter with every quantizer it can be combined with, on tiny decoders of real architectures."""

from __future__ import annotations

import pytest
import torch

from eflm import ModelError
from eflm_plugins.adapters.cards import ADAPTERS
from eflm_plugins.hosts.decoder import DecoderHost
from eflm_plugins.quantizers.cards import QUANTIZERS
from eflm_schemas.options import parse
from support import decoders
from support.decoders import CONFIGS, VOCABULARY, with_attention, with_moe

IDS = torch.randint(3, VOCABULARY, (4, 16), generator=torch.Generator().manual_seed(0))
SETTINGS = {"freeze": {"num_frozen_layers": 1}}
#: The prefix of each method's parameter names in peft.
PREFIXES = dict.fromkeys(("lora", "rslora", "dora", "loraplus", "pissa"), "lora_") | {
    "loha": "hada_",
    "lokr": "lokr_",
}
INT4 = next(card for card in QUANTIZERS if card.name == "int4")


def conflict(adapter, quantizer):
    return any(conflict.plugin == quantizer.address for conflict in adapter.conflicts)


LEGAL = [
    (adapter, quantizer)
    for adapter in ADAPTERS
    for quantizer in QUANTIZERS
    if (quantizer.trainable or not adapter.trains_base) and not conflict(adapter, quantizer)
]
ON_FROZEN_BASE = [card for card in ADAPTERS if not card.trains_base]


def tiny(family="qwen2"):
    """A tiny decoder whose weight rows are multiples of the 4-bit block size."""
    return decoders.tiny(family, hidden_size=64, intermediate_size=128, num_attention_heads=4)


def make(card):
    options = (
        parse(card.config.resolve(), SETTINGS.get(card.name, {}), owner=card.name) if card.config else None
    )
    return card.factory.resolve()(options)


def adapt(model, adapter_card, quantizer_card):
    host = DecoderHost()
    model = make(quantizer_card).apply(model, host.targets(model), "cpu")
    adapter = make(adapter_card)
    return adapter.apply(model, host.targets(model)), adapter


def train(model, adapter, steps=2, learning_rate=5e-3):
    model.train()
    optimizer = torch.optim.AdamW(adapter.parameter_groups(model, learning_rate), weight_decay=0.0)
    losses = []
    for _ in range(steps):
        loss = model(input_ids=IDS, labels=IDS, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


def check_training(model, adapter):
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable
    losses = train(model, adapter)
    assert losses[-1] < losses[0]
    changed = {name for name, p in model.named_parameters() if not torch.equal(before[name], p.detach())}
    assert changed == trainable


#: The other families run in fp32 only: they differ in their layers, not in how weights are stored.
IN_FAMILIES = [
    pytest.param(family, *pair, id="-".join([family, pair[0].name, pair[1].name]))
    for family in CONFIGS
    for pair in LEGAL
    if family == "qwen2" or pair[1].name == "fp32"
]


@pytest.mark.parametrize(("family", "adapter", "quantizer"), IN_FAMILIES)
def test_training_changes_exactly_the_trainable_parameters(family, adapter, quantizer):
    model, made = adapt(tiny(family), adapter, quantizer)
    if adapter in ON_FROZEN_BASE:
        for name, parameter in model.named_parameters():
            assert parameter.requires_grad == (PREFIXES[adapter.name] in name)
            assert parameter.dtype == torch.float32 or not parameter.requires_grad
    check_training(model, made)


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda card: card.name)
def test_output_is_unchanged_before_training(adapter):
    adapter = make(adapter)
    model = adapter.apply(tiny(), DecoderHost().targets(tiny()))
    torch.testing.assert_close(model(IDS).logits, tiny()(IDS).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attention", ["mla", "nsa"])
@pytest.mark.parametrize(("adapter", "quantizer"), LEGAL, ids=lambda card: card.name)
def test_replaced_attention_and_experts_can_be_trained(attention, adapter, quantizer):
    model, adapter = adapt(with_moe(with_attention(tiny(), attention), num_experts=3), adapter, quantizer)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    losses = train(model, adapter)
    assert losses[-1] < losses[0]
    for old, parameter in zip(before, model.parameters(), strict=True):
        if not parameter.requires_grad:
            assert torch.equal(old, parameter)


@pytest.mark.parametrize(
    ("adapter", "quantizer"), [pair for pair in LEGAL if pair[1].name != "int4"], ids=lambda card: card.name
)
def test_merging_changes_no_output(adapter, quantizer):
    # Merging rounds the weights to the dtype of the base; the tolerance covers that rounding error.
    tolerance = {"fp32": 1e-5, "fp16": 0.02, "bf16": 0.1}[quantizer.name]
    model, adapter = adapt(tiny("llama"), adapter, quantizer)
    train(model, adapter, steps=4)
    model.eval()
    with torch.no_grad():
        before = model(input_ids=IDS).logits
        merged = adapter.merge(model).eval()
        after = merged(input_ids=IDS).logits
    torch.testing.assert_close(after, before, rtol=tolerance, atol=tolerance)
    assert not any(prefix in name for name, _ in merged.named_parameters() for prefix in PREFIXES.values())
    assert type(merged).__name__ == "LlamaForCausalLM"


@pytest.mark.parametrize(
    "adapter", [card for card in ON_FROZEN_BASE if (card, INT4) in LEGAL], ids=lambda card: card.name
)
def test_an_adapter_on_a_4_bit_base_is_not_merged(adapter):
    model, adapter = adapt(tiny(), adapter, INT4)
    train(model, adapter)
    merged = adapter.merge(model)
    assert merged is model
    assert any("lora_A" in name for name, _ in merged.named_parameters())
    out = merged.eval().generate(input_ids=IDS[:1], max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert out.shape == (1, 19)


@pytest.mark.parametrize(
    "adapter", [card for card in ON_FROZEN_BASE if conflict(card, INT4)], ids=lambda card: card.name
)
def test_a_model_saved_in_4_bits_is_refused_where_the_card_conflict_does_not_apply(adapter):
    with pytest.raises(ModelError, match=r"q_proj.*Linear4bit, torch\.uint8.*lora"):
        adapt(tiny(), adapter, INT4)
