"""Figures of generated pictures beside the same figures of real ones: what every modality of pictures reports."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from eflm_schemas import Metric
from eflm_vision.data.pictures import Pictures
from eflm_vision.quality.features import Features
from eflm_vision.quality.frechet import frechet_distance
from eflm_vision.quality.judge import Judge

#: Captions or classes in the grid that is saved, and samples of each.
ROWS, COLUMNS = 10, 8


def picture_scores(
    judge: Judge, features: Features | None, train: Pictures, held_out: Pictures, made: Pictures, how: str
) -> dict[str, Metric]:
    """FD and class_accuracy of `made`, and what they are of real pictures. `how` says how they were made.

    FD is taken in `features`; None are the judge's.
    """
    space = features or judge
    count, real = len(made), space.features(held_out.pixels)
    recognised = judge.recognised(made.pixels, made.labels).tolist()
    distance = frechet_distance(space.features(made.pixels), real)
    floor = space.features(train.pixels[:count])
    note = f"{how}; judged by {judge.name}"
    beside = f"{how}, beside {len(held_out):,} held-out real ones; in the features of {space.name}"
    if real.shape[1] >= min(count, len(held_out)):
        beside += "; fewer pictures than features: comparable with the same numbers of them only"
    return {
        "FD": evaluated(distance, "feature distance", count, beside),
        "FD_floor": evaluated(
            frechet_distance(floor, real), "feature distance", len(floor), "real training pictures instead"
        ),
        "class_accuracy": share(recognised, note),
        "class_accuracy_real": evaluated(
            judge.accuracy, "ratio", len(held_out), "held-out real pictures instead"
        ),
    }


def mean_loss(values: Tensor, levels: int) -> Metric:
    """The training objective on held-out samples: (N,), one value a sample."""
    values = values.double()
    note = f"{len(values)} held-out samples at {levels} noise levels"
    return evaluated(float(values.mean()), "mean squared error", len(values), note, sd=float(values.std()))


def share(hits: Sequence[bool], note: str) -> Metric:
    """The share of hits, with Wilson's interval (JASA 1927, 22, 209), which tells of doubt even at none and all."""
    n, value, z = len(hits), sum(hits) / len(hits), 1.96
    middle = (value + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * (value * (1 - value) / n + z**2 / (4 * n**2)) ** 0.5 / (1 + z**2 / n)
    interval = max(0.0, middle - half), min(1.0, middle + half)
    sd = (value * (1 - value)) ** 0.5
    return Metric(value=value, unit="ratio", provenance="evaluated", n=n, sd=sd, ci95=interval, note=note)


def evaluated(value: float, unit: str, n: int, note: str, sd: float | None = None) -> Metric:
    """A metric with the interval that `sd` over `n` samples gives its mean; none where there is no spread."""
    half = None if sd is None else 1.96 * sd / n**0.5
    interval = None if half is None else (value - half, value + half)
    return Metric(value=value, unit=unit, provenance="evaluated", n=n, sd=sd, ci95=interval, note=note)


def shown(labels: Tensor) -> tuple[Tensor, int]:
    """Which samples a grid shows, a row for each of the first classes, and how many stand in a row."""
    rows = [torch.nonzero(labels == label).flatten()[:COLUMNS] for label in range(ROWS)]
    columns = max(1, min(len(row) for row in rows if len(row)))
    return torch.cat([row[:columns] for row in rows]), columns


def rows_told(names: Sequence[str]) -> str:
    """What the rows of that grid show, in words."""
    rest = len(names) - ROWS
    return f"a row each for {', '.join(names[:ROWS])}" + (f"; {rest} more are not shown" if rest > 0 else "")
