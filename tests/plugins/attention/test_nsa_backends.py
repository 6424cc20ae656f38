"""The choice of an nsa backend, and the reason that is reported if it is not the best or the requested one."""

from __future__ import annotations

import attrs
import pytest
import torch
from transformers import DynamicCache

from eflm.testing.attention import AttentionConformance, RotaryEmbedding
from eflm_plugins.attention.nsa import backends
from eflm_plugins.attention.nsa.backends import Call, choose
from eflm_plugins.attention.nsa.module import NativeSparseAttention
from eflm_plugins.attention.nsa.naive import naive
from support.decoders import options_of

PREFILL = Call(device="cpu", heads_per_group=16, block=64, tokens=4096, cached=0, padded=False, dropout=False)
ON_GPU = attrs.evolve(PREFILL, device="cuda")
SHORT = attrs.evolve(PREFILL, tokens=200, covered=True)


@pytest.mark.parametrize(
    ("requested", "call", "backend", "expected_reason"),
    [
        ("auto", PREFILL, "dispatch", None),
        ("dispatch", PREFILL, "dispatch", None),
        ("gather", PREFILL, "gather", None),
        ("auto", attrs.evolve(PREFILL, tokens=1, cached=9), "gather", None),
        ("auto", attrs.evolve(PREFILL, cached=9), "dispatch", None),
        ("auto", attrs.evolve(PREFILL, dropout=True), "gather", "dispatch: it does not support dropout"),
        ("dispatch", attrs.evolve(PREFILL, dropout=True), "gather", "dispatch: it does not support dropout"),
        (
            "auto",
            attrs.evolve(PREFILL, cached=9, padded=True),
            "gather",
            "cached sequences with padding",
        ),
        ("fla", PREFILL, "dispatch", "fla: its kernels run on CUDA"),
        ("auto", ON_GPU, "fla", None),
        ("auto", attrs.evolve(ON_GPU, heads_per_group=4), "dispatch", "16, 32, 64 ... query heads"),
        ("auto", attrs.evolve(ON_GPU, cached=200), "dispatch", "fla: it supports whole sequences only"),
        ("auto", attrs.evolve(ON_GPU, tokens=1, cached=200), "gather", None),
        ("auto", attrs.evolve(ON_GPU, dropout=True), "gather", "fla: it does not support dropout"),
        ("dispatch", ON_GPU, "dispatch", None),
        ("auto", attrs.evolve(PREFILL, tokens=256), "masked", None),
        ("masked", attrs.evolve(PREFILL, tokens=256), "masked", None),
        ("masked", PREFILL, "dispatch", "masked: it supports up to 256 tokens"),
        ("dispatch", attrs.evolve(PREFILL, tokens=256), "dispatch", None),
        ("auto", attrs.evolve(PREFILL, tokens=70, cached=9), "dispatch", None),
        ("auto", attrs.evolve(ON_GPU, tokens=256), "fla", None),
        (
            "auto",
            attrs.evolve(ON_GPU, tokens=256, causal=False),
            "masked",
            "fla: its kernels support causal attention only",
        ),
        ("fla", SHORT, "dense", None),
        ("auto", attrs.evolve(SHORT, device="cuda", heads_per_group=4), "dense", None),
        ("masked", SHORT, "dense", None),
        ("gather", SHORT, "gather", None),
        ("auto", attrs.evolve(SHORT, tokens=1, cached=9), "gather", None),
        ("auto", attrs.evolve(SHORT, dropout=True), "gather", "dense: it does not support dropout"),
        ("dense", PREFILL, "dispatch", "dense: it supports sequences in which a query selects every block"),
        (
            "gather",
            attrs.evolve(PREFILL, causal=False),
            "dispatch",
            "gather: it supports causal attention only",
        ),
    ],
)
def test_the_best_applicable_backend_is_chosen(monkeypatch, requested, call, backend, expected_reason):
    monkeypatch.setattr(backends, "find_spec", lambda name: object())
    chosen, reason = choose(requested, call)
    assert chosen == backend
    assert reason is None if expected_reason is None else expected_reason in reason


def test_the_reason_names_the_extra_of_a_missing_library():
    chosen, reason = choose("auto", ON_GPU)
    assert chosen == "dispatch"
    assert "eflm[cuda]" in reason


def test_the_layer_records_the_backends_it_used():
    module = NativeSparseAttention(
        AttentionConformance.geometry, options_of("nsa", num_selected_blocks=2)
    ).eval()
    cache = DynamicCache()
    module(torch.randn(1, 20, 48), rotary=RotaryEmbedding(torch.arange(20)[None]), cache=cache)
    assert module.used_backends == {"masked": None}
    module(torch.randn(1, 1, 48), rotary=RotaryEmbedding(torch.tensor([[20]])), cache=cache)
    assert module.used_backends == {"masked": None, "gather": None}


@pytest.mark.parametrize("requested", ["auto", "fla", "masked", "dispatch", "gather"])
def test_a_sequence_whose_blocks_are_all_selected_does_not_depend_on_the_kernel(requested):
    options = options_of("nsa", select_block_size=8, num_selected_blocks=4, backend=requested)
    torch.manual_seed(0)
    module = NativeSparseAttention(AttentionConformance.geometry, options).eval()
    tokens, rotary = torch.randn(1, 32, 48), RotaryEmbedding(torch.arange(32)[None])
    torch.testing.assert_close(
        module(tokens, rotary=rotary), naive(module, tokens, rotary=rotary), rtol=1e-4, atol=1e-5
    )
    assert module.used_backends == {"gather" if requested == "gather" else "dense": None}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
@pytest.mark.parametrize("length", [64, 200, 1024])
def test_triton_kernel_equals_dispatch(length):
    pytest.importorskip("fla")
    from eflm_plugins.attention.nsa.select_dispatch import attend_dispatched
    from eflm_plugins.attention.nsa.select_fla import attend_with_fla
    from eflm_plugins.attention.nsa.selection import choose_blocks

    torch.manual_seed(0)
    query, key, value = (
        torch.randn(2, heads, length, 64, device="cuda", dtype=torch.bfloat16) for heads in (32, 2, 2)
    )
    blocks = -(-length // 32)
    own = torch.arange(length, device="cuda") // 32
    chosen = choose_blocks(torch.rand(2, 2, length, blocks, device="cuda"), own, 4)
    got = attend_with_fla(query, key, value, chosen, 0.125, 32)
    expected = attend_dispatched(query.float(), key.float(), value.float(), chosen, 0, 0.125, 32)
    torch.testing.assert_close(got.float(), expected, rtol=2e-2, atol=2e-2)
