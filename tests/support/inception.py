"""Random weights of Inception v3 in the layout of torch-fidelity's file, for tests."""

from __future__ import annotations

import math
from functools import cache

import torch

from eflm_vision.quality.inception import FEATURES, InceptionV3


def random_state() -> dict[str, torch.Tensor]:
    """Return all tensors of the file, including the classifier, scaled so that the activations of all layers vary.

    The tensors are the same in all calls and must not be changed.
    """
    return dict(_random_state())


@cache
def _random_state() -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in InceptionV3().state_dict().items()}
    shapes |= {"fc.weight": torch.Size((1008, FEATURES)), "fc.bias": torch.Size((1008,))}
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(0)
        elif name.endswith(("running_var", "bn.weight")):
            state[name] = torch.rand(shape, generator=generator) + 0.5
        else:
            inputs = math.prod(shape[1:]) if len(shape) > 1 else 100
            state[name] = torch.randn(shape, generator=generator) * math.sqrt(2 / inputs)
    return state
