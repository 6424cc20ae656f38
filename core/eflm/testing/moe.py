"""The conformance suite of MoE routers: independence of tokens, dtypes, compilation, and the naive reference.

Subclass `RouterConformance` in a test module and define `build` and `naive`; pytest then runs all checks. The built-in
routers use the same suite.
"""

from __future__ import annotations

from typing import Any

import pytest

from eflm_schemas import MlpGeometry

#: Shapes without the hidden size: one token, odd numbers, fewer tokens than experts, batches of sequences.
SHAPES = {"N1": (1,), "N3": (3,), "N37": (37,), "B2-T9": (2, 9), "B3-T1": (3, 1)}
#: Largest difference due to rounding, relative to the largest absolute value.
ROUNDING = {"float64": 1e-10, "float32": 2e-5}


class RouterConformance:
    """The suite. Set `causal` to False if the experts of a token depend on other tokens."""

    geometry = MlpGeometry(hidden_size=16, intermediate_size=24, layer_idx=0, initializer_range=0.3)
    causal = True
    #: the naive reference, `naive(layer, tokens)`; None if there is none
    naive: Any = None

    def build(self, geometry: MlpGeometry) -> Any:
        """Build an expert layer with the router under test."""
        raise AssertionError(f"{type(self).__name__} must define build(geometry)")

    def _layer(self) -> Any:
        import torch

        torch.manual_seed(0)
        layer = self.build(self.geometry).eval()
        with torch.no_grad():
            for parameter in layer.parameters():
                # Wide enough that no two scores are almost equal.
                parameter.normal_(std=self.geometry.initializer_range)
        return layer

    def _tokens(self, shape: tuple[int, ...], seed: int = 1) -> Any:
        import torch

        generator = torch.Generator().manual_seed(seed)
        return torch.randn(*shape, self.geometry.hidden_size, generator=generator)

    def _value_and_gradients(self, layer: Any, run: Any, tokens: Any) -> dict[str, Any]:
        layer.zero_grad()
        leaf = tokens.clone().requires_grad_()
        out = run(leaf)
        (out * self._tokens(tokens.shape[:-1], seed=3).to(tokens)).sum().backward()
        gradients = {name: p.grad.clone() for name, p in layer.named_parameters() if p.grad is not None}
        return {"out": out.detach(), "tokens": leaf.grad} | gradients

    @pytest.mark.parametrize("dtype", ROUNDING)
    @pytest.mark.parametrize("shape", SHAPES)
    def test_it_equals_its_naive_reference(self, shape: str, dtype: str) -> None:
        import torch

        if self.naive is None:
            pytest.skip("there is no naive reference")
        layer = self._layer().to(getattr(torch, dtype))
        tokens, naive = self._tokens(SHAPES[shape]).to(getattr(torch, dtype)), type(self).naive
        fast = self._value_and_gradients(layer, layer, tokens)
        slow = self._value_and_gradients(layer, lambda states: naive(layer, states), tokens)
        for name, expected in slow.items():
            error, scale = float((fast[name] - expected).abs().max()), float(expected.abs().max())
            assert error <= ROUNDING[dtype] * max(scale, 1.0), f"{name} differs by {error:.2g} of {scale:.2g}"
        for name in fast.keys() - slow.keys():
            assert not fast[name].any(), f"{name} has a gradient, but not in the naive reference"

    def test_a_token_does_not_depend_on_other_tokens(self) -> None:
        import torch

        if not self.causal:
            pytest.skip("the experts of a token depend on other tokens")
        layer, tokens = self._layer(), self._tokens((12,))
        alone = torch.cat([layer(token[None]) for token in tokens])
        torch.testing.assert_close(layer(tokens), alone, rtol=1e-4, atol=1e-5)

    def test_it_runs_in_bfloat16(self) -> None:
        import torch

        layer, tokens = self._layer(), self._tokens((37,))
        exact, out = layer(tokens), layer.to(torch.bfloat16)(tokens.to(torch.bfloat16))
        assert out.dtype == torch.bfloat16
        # Rounding may change the experts of some tokens, so only most outputs must be close.
        close = (out.float() - exact).norm(dim=-1) < 0.1 * exact.norm(dim=-1).clamp(min=0.1)
        assert close.float().mean() > 0.7

    def test_gradient_checkpointing_changes_nothing(self) -> None:
        import torch
        from torch.utils.checkpoint import checkpoint

        layer, tokens = self._layer(), self._tokens((2, 9))
        plain = self._value_and_gradients(layer, layer, tokens)
        recomputed = self._value_and_gradients(
            layer, lambda t: checkpoint(layer, t, use_reentrant=False), tokens
        )
        for name, expected in plain.items():
            torch.testing.assert_close(recomputed[name], expected)

    def test_it_compiles(self) -> None:
        import torch

        layer, tokens = self._layer(), self._tokens((2, 9))
        # This backend traces and differentiates as the default one does, but needs no C compiler.
        compiled = torch.compile(layer, backend="aot_eager")
        plain = self._value_and_gradients(layer, layer, tokens)
        traced = self._value_and_gradients(layer, compiled, tokens)
        torch._dynamo.reset()
        for name, expected in plain.items():
            torch.testing.assert_close(traced[name], expected, rtol=1e-4, atol=1e-5)
