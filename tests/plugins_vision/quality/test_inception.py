"""Compares the Inception network with torch-fidelity's, and its resizing with a loop over pixels."""

from __future__ import annotations

import hashlib
import importlib
import sys
import types
from importlib.util import find_spec

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eflm_vision.quality.inception import FEATURES, InceptionV3, enlarged
from support.inception import random_state

#: SHA-256 of the sorted names and shapes of torch-fidelity 0.4.0's FeatureExtractorInceptionV3, including fc.
LAYOUT = "760681d791cb624e1bf7a2e802a68933dd17aa5e3109fcf498d9dfa521bc10d7"


def test_names_and_shapes_match_the_published_weights():
    shapes = {name: tuple(value.shape) for name, value in random_state().items()}
    lines = "\n".join(f"{name} {shape}" for name, shape in sorted(shapes.items()))
    assert hashlib.sha256(lines.encode()).hexdigest() == LAYOUT


def published_network():
    """Import torch-fidelity's network without its package's `__init__`, which imports torchvision."""
    spec = find_spec("torch_fidelity")
    bare = types.ModuleType("torch_fidelity")
    bare.__path__ = list(spec.submodule_search_locations)
    kept = {name: module for name, module in sys.modules.items() if name.startswith("torch_fidelity")}
    sys.modules["torch_fidelity"] = bare
    try:
        return importlib.import_module(
            "torch_fidelity.feature_extractor_inceptionv3"
        ).FeatureExtractorInceptionV3
    finally:
        for name in [name for name in sys.modules if name.startswith("torch_fidelity")]:
            del sys.modules[name]
        sys.modules.update(kept)


@pytest.mark.skipif(
    find_spec("torch_fidelity") is None,
    reason="torch-fidelity is not installed (pip install --no-deps torch-fidelity)",
)
def test_features_match_torch_fidelity(tmp_path):
    state = random_state()
    torch.save(state, tmp_path / "weights.pth")
    theirs = published_network()("inception", ["2048"], str(tmp_path / "weights.pth"))
    ours = InceptionV3().eval()
    ours.load_state_dict({name: value for name, value in state.items() if not name.startswith("fc.")})
    levels = torch.randint(
        0, 256, (2, 3, 20, 13), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        (expected,) = theirs(levels)
        found = ours(levels.float())
    assert found.shape == (2, FEATURES)
    assert float(expected.std()) > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@given(height=st.integers(1, 9), width=st.integers(1, 9), side=st.integers(1, 12), seed=st.integers(0, 999))
@settings(deadline=None, max_examples=30)
def test_images_are_resized_as_in_tensorflow_1(height, width, side, seed):
    pixels = torch.rand(1, 2, height, width, generator=torch.Generator().manual_seed(seed)).double()
    expected = numpy.zeros((2, side, side))
    for y in range(side):
        for x in range(side):
            top, left = numpy.float32(y * (height / side)), numpy.float32(x * (width / side))
            y0, x0 = int(top), int(left)
            y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
            for channel, plane in enumerate(pixels[0].numpy()):
                upper = plane[y0, x0] + (plane[y0, x1] - plane[y0, x0]) * (left - x0)
                lower = plane[y1, x0] + (plane[y1, x1] - plane[y1, x0]) * (left - x0)
                expected[channel, y, x] = upper + (lower - upper) * (top - y0)
    found = enlarged(pixels, side)
    assert found.shape == (1, 2, side, side)
    numpy.testing.assert_allclose(found[0].numpy(), expected, atol=1e-5)
