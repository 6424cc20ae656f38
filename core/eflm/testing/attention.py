"""The conformance suite of attention variants: shape, causality, cache, padding, dtypes, and the naive reference.

Subclass `AttentionConformance` in a test module and define `build`; pytest then runs all checks. The built-in variants
use the same suite.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import pytest

from eflm_schemas import AttentionGeometry

#: Sequence lengths: one token, and lengths that are not multiples of block sizes.
LENGTHS = (1, 2, 7, 16, 33, 50)
#: Batches for the comparison with the naive reference: tokens, and the padding of each sequence on the left and right.
BATCHES = {
    "B1-T1": (1, (0,), (0,)),
    "B1-T2": (2, (0,), (0,)),
    "B2-T7": (7, (0, 0), (0, 0)),
    "B1-T33": (33, (0,), (0,)),
    "B2-T50": (50, (0, 0), (0, 0)),
    "B3-T41-left": (41, (0, 5, 12), (0, 0, 17)),
    "B2-T41-right": (41, (0, 0), (3, 17)),
}
#: Largest difference due to rounding, relative to the largest absolute value. The naive reference runs in float64.
ROUNDING = {"float64": 1e-10, "float32": 2e-5}
#: Chunks in which a sequence of 50 tokens is given to the cache.
CHUNKS = ((1,) * 50, (25, 25), (7, 1, 1, 9, 20, 1, 11), (49, 1))
#: The last results of a naive reference, by suite and batch.
_EXPECTED: dict[tuple[type, str], list[dict[str, Any]]] = {}


class RotaryEmbedding:
    """A rotary function for tests: RoPE (arXiv 2104.09864, eq. 34) at the given positions, for any even head size.

    `positions`: (batch or 1, tokens).
    """

    def __init__(self, positions: Any) -> None:
        self.positions = positions

    def __call__(self, states: Any) -> Any:
        """Rotate `states`: (batch, heads, tokens, head size) -> the same shape."""
        import torch

        size = states.shape[-1]
        frequencies = 10000.0 ** (-torch.arange(0, size, 2, device=states.device, dtype=torch.float64) / size)
        angles = (self.positions[..., None].double() * frequencies).to(states.dtype)
        cos, sin = angles.cos()[:, None], angles.sin()[:, None]
        first, second = states.chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class AttentionConformance:
    """The suite. Define `build`, and change `geometry`, `tolerance` or `rounding` if a variant needs it."""

    geometry = AttentionGeometry(
        hidden_size=48,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=8,
        layer_idx=0,
        initializer_range=0.2,
    )
    tolerance = 1e-4
    rounding: Mapping[str, float] = ROUNDING

    #: the naive reference, `naive(variant, tokens, *, rotary, padding_mask)`; None if there is none
    naive: Any = None

    def build(self, geometry: AttentionGeometry) -> Any:
        """Build the variant under test."""
        raise AssertionError(f"{type(self).__name__} must define build(geometry)")

    # --- helpers ------------------------------------------------------------------------------------

    def _variant(self) -> Any:
        import torch

        torch.manual_seed(0)
        variant = self.build(self.geometry).eval()
        with torch.no_grad():
            for parameter in variant.parameters():
                # Some parameters are initialized to zero, which could hide a mistake.
                parameter.add_(0.1 * torch.randn_like(parameter))
        return variant

    def _tokens(self, batch: int, length: int, seed: int = 1) -> Any:
        import torch

        generator = torch.Generator().manual_seed(seed)
        return torch.randn(batch, length, self.geometry.hidden_size, generator=generator)

    def _run(self, variant: Any, tokens: Any, **keywords: Any) -> Any:
        import torch

        positions = keywords.pop("positions", torch.arange(tokens.shape[1])[None])
        return variant(tokens, rotary=RotaryEmbedding(positions), **keywords)

    def _assert_close(self, got: Any, expected: Any) -> None:
        import torch

        torch.testing.assert_close(got, expected, rtol=self.tolerance, atol=self.tolerance)

    def _require_causal(self) -> None:
        if not self.geometry.causal:
            pytest.skip("bidirectional attention has no cache")

    # --- the checks ---------------------------------------------------------------------------------

    def test_output_has_the_shape_of_the_tokens(self) -> None:
        import torch

        variant = self._variant()
        for length in LENGTHS:
            out = self._run(variant, self._tokens(2, length))
            assert out.shape == (2, length, self.geometry.hidden_size), f"T{length}"
            assert torch.isfinite(out).all(), f"T{length}"

    def test_earlier_outputs_depend_on_a_token_only_in_bidirectional_attention(self) -> None:
        variant, tokens = self._variant(), self._tokens(2, 50)
        before = self._run(variant, tokens)
        for changed in (1, 7, 8, 23, 49):
            other = tokens.clone()
            other[:, changed] = self._tokens(2, 1, seed=changed + 2)[:, 0]
            after = self._run(variant, other)
            moved = (after - before).abs().amax(-1) > self.tolerance
            assert moved[:, changed].any(), f"the output of token {changed} does not depend on it"
            if self.geometry.causal:
                self._assert_close(after[:, :changed], before[:, :changed])
            else:
                assert moved[:, changed - 1].any(), f"the token before token {changed} does not see it"

    def test_chunks_with_a_cache_equal_the_whole_sequence(self) -> None:
        import torch
        from transformers import DynamicCache

        self._require_causal()
        variant, tokens = self._variant(), self._tokens(2, 50)
        whole = self._run(variant, tokens)
        for chunks in CHUNKS:
            cache, parts, begin = DynamicCache(), [], 0
            for count in chunks:
                positions = torch.arange(begin, begin + count)[None]
                chunk = tokens[:, begin : begin + count]
                parts.append(self._run(variant, chunk, positions=positions, cache=cache))
                begin += count
                assert cache.get_seq_length() == begin
            self._assert_close(torch.cat(parts, dim=1), whole)

    def test_padding_does_not_change_other_tokens(self) -> None:
        import torch
        from transformers import DynamicCache

        variant, tokens = self._variant(), self._tokens(3, 41)
        alone = [self._run(variant, tokens[row : row + 1]) for row in range(3)]
        pads, length = (0, 5, 12), 53
        padded = self._tokens(3, length, seed=9)
        mask = torch.zeros(3, length, dtype=torch.bool)
        for row, pad in enumerate(pads):
            padded[row, pad : pad + 41] = tokens[row]
            mask[row, pad : pad + 41] = True
        positions = torch.stack([(torch.arange(length) - pad).clamp(min=0) for pad in pads])
        divisions = ((53,), (30, 1, 1, 1, 8, 12), (1,) * 53) if self.geometry.causal else ((53,),)
        for chunks in divisions:
            cache, parts, begin = DynamicCache() if self.geometry.causal else None, [], 0
            for count in chunks:
                end = begin + count
                part = self._run(
                    variant,
                    padded[:, begin:end],
                    positions=positions[:, begin:end],
                    padding_mask=mask[:, :end],
                    cache=cache,
                )
                parts.append(part)
                begin = end
            out = torch.cat(parts, dim=1)
            assert torch.isfinite(out).all()
            for row, pad in enumerate(pads):
                self._assert_close(out[row : row + 1, pad : pad + 41], alone[row])

    def test_the_cache_can_be_reordered(self) -> None:
        import torch
        from transformers import DynamicCache

        self._require_causal()
        variant, tokens = self._variant(), self._tokens(3, 20)
        order = torch.tensor([2, 0, 0])
        cache = DynamicCache()
        self._run(variant, tokens[:, :19], cache=cache)
        cache.reorder_cache(order)
        step = self._run(variant, tokens[order, 19:], positions=torch.tensor([[19]]), cache=cache)
        self._assert_close(step, self._run(variant, tokens)[order, 19:])

    def test_every_parameter_gets_a_gradient(self) -> None:
        import torch

        variant, tokens = self._variant().train(), self._tokens(2, 50).requires_grad_()
        (self._run(variant, tokens) * self._tokens(2, 50, seed=5)).sum().backward()
        assert tokens.grad is not None
        assert torch.isfinite(tokens.grad).all()
        idle = [
            name
            for name, parameter in variant.named_parameters()
            if parameter.requires_grad
            and (
                parameter.grad is None
                or not torch.isfinite(parameter.grad).all()
                or not parameter.grad.abs().sum() > 0
            )
        ]
        assert not idle, f"no gradient reaches {', '.join(idle)}"

    def test_it_runs_in_bfloat16(self) -> None:
        import torch

        variant, tokens = self._variant(), self._tokens(2, 33)
        exact = self._run(variant, tokens)
        out = self._run(variant.to(torch.bfloat16), tokens.to(torch.bfloat16))
        assert out.dtype == torch.bfloat16
        # bfloat16 has 8 bits of precision, so the bound is coarse; a wrong dtype in the computation would exceed it.
        assert (out.float() - exact).norm() < 0.1 * exact.norm()

    @pytest.mark.parametrize("dtype", ROUNDING)
    @pytest.mark.parametrize("batch", BATCHES)
    def test_it_equals_its_naive_reference(self, batch: str, dtype: str) -> None:
        if self.naive is None:
            pytest.skip("there is no naive reference")
        fast = self._results(batch, dtype, lambda variant: variant)
        for got, expected in zip(fast, self._expected(batch), strict=True):
            self._assert_equal(got, expected, self.rounding[dtype])

    def _expected(self, batch: str) -> list[dict[str, Any]]:
        """Return the results of the naive reference. The loops are slow, so all dtypes share them."""
        key = (type(self), batch)
        if key not in _EXPECTED:
            naive = type(self).naive
            _EXPECTED.clear()
            _EXPECTED[key] = self._results(
                batch, "float64", lambda variant: lambda states, **k: naive(variant, states, **k)
            )
        return _EXPECTED[key]

    def _results(self, batch: str, dtype: str, runner: Any) -> list[dict[str, Any]]:
        """Return the values and gradients of `runner(variant)` without and with a bias on the scores."""
        import torch

        length, left, right = BATCHES[batch]
        variant = self._variant().to(getattr(torch, dtype))
        tokens = self._tokens(len(left), length).to(getattr(torch, dtype))
        places = torch.arange(length)[None]
        begins, ends = torch.tensor(left)[:, None], length - torch.tensor(right)[:, None]
        mask = (places >= begins) & (places < ends)
        keywords = {
            "rotary": RotaryEmbedding((places - begins).clamp(min=0)),
            "padding_mask": None if mask.all() else mask,
        }
        weight = self._tokens(len(left), length, seed=3).to(tokens) * mask[..., None]
        return [
            self._value_and_gradients(variant, runner(variant), tokens, weight, keywords | more)
            for more in self._biases(variant, length)
        ]

    def _biases(self, variant: Any, length: int) -> list[dict[str, Any]]:
        """Return the keywords without a bias on the scores, and those with one if the variant supports it."""
        import torch

        if "bias" not in inspect.signature(variant.forward).parameters:
            return [{}]
        heads = self.geometry.num_attention_heads
        bias = torch.randn(1, heads, length, length, generator=torch.Generator().manual_seed(6))
        return [{}, {"bias": bias.to(next(variant.parameters()).dtype).requires_grad_()}]

    def _assert_equal(self, fast: dict[str, Any], slow: dict[str, Any], rounding: float) -> None:
        for name, expected in slow.items():
            # Errors are relative to the largest gradient, since some gradients are zero except for rounding: the bias
            # of keys does not change the softmax.
            scale = max(
                float(value.abs().max()) for key, value in slow.items() if ("out" in key) == ("out" in name)
            )
            error = float((fast[name] - expected).abs().max())
            assert error <= rounding * max(scale, 1.0), f"{name} differs by {error:.2g} of {scale:.2g}"

    def _value_and_gradients(
        self, variant: Any, run: Any, tokens: Any, weight: Any, keywords: Any
    ) -> dict[str, Any]:
        variant.zero_grad()
        leaf = tokens.clone().requires_grad_()
        out = run(leaf, **keywords)
        (out * weight).sum().backward()
        gradients = {name: p.grad for name, p in variant.named_parameters() if p.grad is not None}
        if (bias := keywords.get("bias")) is not None:
            gradients["bias"], bias.grad = bias.grad, None
        return {"out": (out * weight.ne(0)).detach(), "tokens": leaf.grad} | {
            k: v.clone() for k, v in gradients.items()
        }

    def test_gradient_checkpointing_changes_nothing(self) -> None:
        import torch
        from torch.utils.checkpoint import checkpoint

        variant, tokens = self._variant().train(), self._tokens(2, 33)
        weight, keywords = self._tokens(2, 33, seed=3), {"rotary": RotaryEmbedding(torch.arange(33)[None])}
        plain = self._value_and_gradients(variant, variant, tokens, weight, keywords)
        recomputed = self._value_and_gradients(
            variant,
            lambda states, **k: checkpoint(variant, states, use_reentrant=False, **k),
            tokens,
            weight,
            keywords,
        )
        for name, expected in plain.items():
            self._assert_close(recomputed[name], expected)

    def test_it_compiles(self) -> None:
        import torch

        variant, tokens = self._variant(), self._tokens(2, 33)
        # This backend traces and differentiates as the default one does, but needs no C compiler.
        compiled = torch.compile(variant, backend="aot_eager")
        weight, keywords = self._tokens(2, 33, seed=3), {"rotary": RotaryEmbedding(torch.arange(33)[None])}
        plain = self._value_and_gradients(variant, variant, tokens, weight, keywords)
        traced = self._value_and_gradients(variant, compiled, tokens, weight, keywords)
        torch._dynamo.reset()
        for name, expected in plain.items():
            self._assert_close(traced[name], expected)
