"""The Fréchet distance against its formula, the judge's accuracy on digits, and sample grids and animations."""

from __future__ import annotations

import io

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.linalg import sqrtm

from eflm_vision.data import digits
from eflm_vision.quality.frechet import frechet_distance
from eflm_vision.quality.judge import train
from eflm_vision.quality.show import CELL, GAP, clips, grid


def sample(rows, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(columns, columns, generator=generator)
    return torch.randn(rows, columns, generator=generator) @ mixed + seed % 3


@given(
    rows=st.integers(2, 40), others=st.integers(2, 40), columns=st.integers(1, 8), seed=st.integers(0, 10**4)
)
@settings(deadline=None, max_examples=40)
def test_the_distance_matches_the_formula(rows, others, columns, seed):
    first, second = sample(rows, columns, seed).double(), sample(others, columns, seed + 1).double()
    one, two = (numpy.atleast_2d(numpy.cov(x.numpy(), rowvar=False)) for x in (first, second))
    root = numpy.real(numpy.trace(sqrtm(one @ two)))
    mean = ((first.mean(0) - second.mean(0)) ** 2).sum().item()
    expected = mean + numpy.trace(one) + numpy.trace(two) - 2 * root
    scale = numpy.trace(one) + numpy.trace(two) + mean
    assert frechet_distance(first, second) == pytest.approx(expected, abs=1e-5 * scale)


@given(rows=st.integers(3, 30), columns=st.integers(1, 6), seed=st.integers(0, 10**4))
@settings(deadline=None, max_examples=20)
def test_the_distance_is_zero_to_itself_and_symmetric(rows, columns, seed):
    first, second = sample(rows, columns, seed).double(), sample(rows, columns, seed + 1).double()
    scale = first.var() + second.var() + 1
    assert abs(frechet_distance(first, first)) < 1e-6 * scale * columns
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first), rel=1e-6)
    # A shift adds the square of its length, independent of the covariance.
    shifted = frechet_distance(first, first + 2)
    assert shifted == pytest.approx(4 * columns, rel=1e-6)


@pytest.mark.parametrize(("rows", "others"), [(80, 200), (200, 80), (40, 40)])
def test_there_may_be_more_features_than_rows(rows, others):
    # An isometric embedding of ten features into 2,048 dimensions keeps the distance.
    basis, _ = torch.linalg.qr(torch.randn(2048, 10, generator=torch.Generator().manual_seed(0)).double())
    first, second = sample(rows, 10, 1).double(), sample(others, 10, 2).double()
    expected = frechet_distance(first, second)
    assert frechet_distance(first @ basis.T + 3, second @ basis.T + 3) == pytest.approx(expected, rel=1e-9)


def test_singular_covariances_give_the_distance_computed_from_eigenvalues():
    first, second = sample(40, 300, 1).double(), sample(60, 300, 2).double()
    one, two = (numpy.cov(features.numpy(), rowvar=False) for features in (first, second))
    values, vectors = numpy.linalg.eigh(one)
    root = vectors * numpy.sqrt(values.clip(0)) @ vectors.T
    inner = numpy.sqrt(numpy.linalg.eigvalsh(root @ two @ root).clip(0)).sum()
    mean = float((first.mean(0) - second.mean(0)).square().sum())
    expected = mean + numpy.trace(one) + numpy.trace(two) - 2 * inner
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-6)


def test_one_row_of_features_is_an_error():
    with pytest.raises(ValueError, match="at least two rows"):
        frechet_distance(torch.zeros(1, 3), torch.zeros(5, 3))


def test_the_judge_is_accurate_and_does_not_depend_on_the_seed():
    real, held_out = digits.load().split()
    torch.manual_seed(7)
    before = torch.get_rng_state()
    judge = train(real, held_out)
    assert torch.equal(torch.get_rng_state(), before)
    assert judge.accuracy > 0.93
    assert float(judge.recognised(held_out.pixels, held_out.labels).float().mean()) == pytest.approx(
        judge.accuracy
    )
    noise = torch.rand(200, 1, 8, 8) * 2 - 1
    assert float(judge.recognised(noise, torch.arange(200) % 10).float().mean()) < 0.35
    features = judge.features(held_out.pixels)
    assert frechet_distance(judge.features(noise), features) > 5 * frechet_distance(
        judge.features(real.pixels[:359]), features
    )
    torch.manual_seed(8)
    assert train(real, held_out).name == judge.name


def test_a_grid_shows_its_images_in_order():
    pixels = torch.linspace(-1, 1, 6)[:, None, None, None].expand(6, 1, 8, 8)
    picture = Image.open(io.BytesIO(grid(pixels, columns=3)))
    assert picture.size == (3 * (CELL + GAP) + GAP, 2 * (CELL + GAP) + GAP)
    middles = [GAP + CELL // 2 + i * (CELL + GAP) for i in range(3)]
    shown = [picture.getpixel((x, y))[0] for y in middles[:2] for x in middles]
    assert shown == [0, 51, 102, 153, 204, 255]


def test_clips_are_written_as_an_animated_gif():
    frames = torch.stack([torch.full((2, 3, 8, 8), value) for value in (-1.0, 0.0, 1.0)], dim=1)
    moving = Image.open(io.BytesIO(clips(frames, columns=2)))
    assert (moving.format, moving.n_frames) == ("GIF", 3)
