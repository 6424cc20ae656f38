"""Quantizing while loading affects the same layers as quantizing in memory."""

from __future__ import annotations

import bitsandbytes
import torch
from transformers import AutoModelForCausalLM, OPTConfig

from eflm_plugins.hosts.decoder import DecoderHost
from eflm_plugins.modalities.pretrained import find
from eflm_plugins.quantizers.at_load import exclude_modules
from eflm_plugins.quantizers.int4 import int4
from eflm_plugins.quantizers.options import Int4Options
from support.decoders import tiny


def test_other_arguments_are_unchanged():
    model = tiny()
    kwargs = {"dtype": torch.bfloat16}
    assert exclude_modules(kwargs, model, DecoderHost().targets(model)) == kwargs


def test_the_quantizers_own_config_is_not_modified():
    model, kwargs = tiny(), int4(Int4Options()).load_kwargs("cuda")
    changed = exclude_modules(kwargs, model, DecoderHost().targets(model))
    assert changed["quantization_config"].llm_int8_skip_modules == ["lm_head"]
    assert kwargs["quantization_config"].llm_int8_skip_modules is None
    assert changed["device_map"] == {"": "cuda"}


def test_only_the_targets_of_the_host_are_loaded_in_4_bits(tmp_path):
    """OPT has projections outside its blocks, which transformers would quantize too."""
    config = OPTConfig(
        hidden_size=64, ffn_dim=128, num_hidden_layers=2, num_attention_heads=4, vocab_size=97,
        word_embed_proj_dim=32, do_layer_norm_before=False, pad_token_id=0,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    found, host = find(str(tmp_path)), DecoderHost()
    keywords = {**int4(Int4Options()).load_kwargs("cuda"), "device_map": {"": "cpu"}}

    def packed(**kwargs):
        model = found.build(from_scratch=False, load_kwargs=keywords, **kwargs)
        return {name for name, m in model.named_modules() if isinstance(m, bitsandbytes.nn.Linear4bit)}

    targets = host.targets(found.build(from_scratch=False, load_kwargs={}))
    assert packed(host=host) == set(targets.linears)
    assert packed() - set(targets.linears) == {"model.decoder.project_in", "model.decoder.project_out"}
