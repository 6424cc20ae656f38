"""What `eflm.build` made is saved, and loads again or says why it does not."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

import eflm

IDS = torch.randint(3, 1000, (1, 20), generator=torch.Generator().manual_seed(0))


def test_techniques_come_back(tmp_path):
    model = eflm.build(attention="nsa", moe="topk", settings={"topk.num_experts": 2})
    model.save_pretrained(tmp_path)
    assert torch.equal(eflm.build(model=str(tmp_path))(IDS).logits, model(IDS).logits)


def test_four_bits_of_a_plain_model_load_with_transformers(tmp_path):
    model = eflm.build(attention="gqa", quant="int4")
    model.save_pretrained(tmp_path)
    assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path)(IDS).logits, model(IDS).logits)


def test_four_bits_under_a_technique_are_refused_in_words(tmp_path):
    eflm.build(attention="nsa", quant="int4").save_pretrained(tmp_path)
    with pytest.raises(eflm.ModelError, match="save it before it is quantized"):
        eflm.build(model=str(tmp_path))
