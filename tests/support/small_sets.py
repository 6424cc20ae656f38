"""Parts of the built-in sets digits and easy-VQA, for tests that encode, caption or classify them but need only a few.

The samples of a part are real, and every class occurs in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from unittest import mock

import torch

from eflm_vision.data import digits, easy_vqa, named
from eflm_vision.data.pictures import Pictures
from eflm_vision.data.scenes import Scenes

#: Before they are replaced.
_all_digits, _all_scenes = digits.load, easy_vqa.load


@contextmanager
def small_digits(each: int = 10) -> Iterator[None]:
    """Reduce the set digits to the first `each` images of every class, and so the clips that are made of them."""

    def load() -> Pictures:
        found = _all_digits()
        rows = [torch.nonzero(found.labels == label).flatten()[:each] for label in range(len(found.classes))]
        return found.subset(torch.cat(rows).sort().values)

    with mock.patch.object(digits, "load", load):
        yield


@contextmanager
def small_easy_vqa(every: int = 10) -> Iterator[None]:
    """Reduce easy-VQA to one scene in `every`, in the original split."""

    def load() -> Scenes:
        return _some_scenes(every)

    with mock.patch.object(easy_vqa, "load", load), mock.patch.dict(named.QUESTIONS, {"easy-vqa": load}):
        yield


@cache
def _some_scenes(every: int) -> Scenes:
    """Return the part, which takes a second to read and is not changed by tests."""
    found = _all_scenes()
    return Scenes(name=found.name, train=found.train[::every], held_out=found.held_out[::every])
