"""Quality metrics of generated images, and of real images for comparison; used by all image and video modalities."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from eflm_schemas import Metric
from eflm_vision.data.pictures import Pictures
from eflm_vision.quality.features import Features
from eflm_vision.quality.frechet import frechet_distance
from eflm_vision.quality.judge import Judge

#: Rows (captions or classes) of the saved sample grid, and samples in each row.
ROWS, COLUMNS = 10, 8


def picture_scores(
    judge: Judge, features: Features | None, train: Pictures, held_out: Pictures, made: Pictures, how: str
) -> dict[str, Metric]:
    """Return FD and class_accuracy of the generated images `made`, and both metrics of real images.

    `how` describes for the notes how the images were generated. FD is computed in `features`; None: those of `judge`.
    """
    space = features or judge
    count, real = len(made), space.features(held_out.pixels)
    recognised = judge.recognised(made.pixels, made.labels).tolist()
    distance = frechet_distance(space.features(made.pixels), real)
    floor = space.features(train.pixels[:count])
    note = f"{how}; classified by {judge.name}"
    compared = f"{how}, compared with {len(held_out):,} held-out real images; features of {space.name}"
    if real.shape[1] >= min(count, len(held_out)):
        compared += "; fewer images than features: compare only runs with the same numbers of images"
    return {
        "FD": evaluated(distance, "feature distance", count, compared),
        "FD_floor": evaluated(
            frechet_distance(floor, real), "feature distance", len(floor), "FD of real training images"
        ),
        "class_accuracy": share(recognised, note),
        "class_accuracy_real": evaluated(
            judge.accuracy, "ratio", len(held_out), "the judge's accuracy on held-out real images"
        ),
    }


def mean_loss(values: Tensor, levels: int) -> Metric:
    """Return the mean of the training loss on held-out samples. `values`: (N,), one loss per sample."""
    values = values.double()
    note = f"{len(values)} held-out samples at {levels} noise levels"
    return evaluated(float(values.mean()), "mean squared error", len(values), note, sd=float(values.std()))


def share(hits: Sequence[bool], note: str) -> Metric:
    """Return the share of hits with Wilson's interval (JASA 1927, 22, 209), which has a width even at 0% and 100%."""
    n, value, z = len(hits), sum(hits) / len(hits), 1.96
    middle = (value + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * (value * (1 - value) / n + z**2 / (4 * n**2)) ** 0.5 / (1 + z**2 / n)
    interval = max(0.0, middle - half), min(1.0, middle + half)
    sd = (value * (1 - value)) ** 0.5
    return Metric(value=value, unit="ratio", provenance="evaluated", n=n, sd=sd, ci95=interval, note=note)


def evaluated(value: float, unit: str, n: int, note: str, sd: float | None = None) -> Metric:
    """Return a metric with the 95% interval of its mean from `sd` over `n` samples; without `sd`, no interval."""
    half = None if sd is None else 1.96 * sd / n**0.5
    interval = None if half is None else (value - half, value + half)
    return Metric(value=value, unit=unit, provenance="evaluated", n=n, sd=sd, ci95=interval, note=note)


def shown(labels: Tensor) -> tuple[Tensor, int]:
    """Return the indices of the samples in the grid, one row for each of the first classes, and the row length."""
    rows = [torch.nonzero(labels == label).flatten()[:COLUMNS] for label in range(ROWS)]
    columns = max(1, min(len(row) for row in rows if len(row)))
    return torch.cat([row[:columns] for row in rows]), columns


def describe_rows(names: Sequence[str]) -> str:
    """Describe the rows of that grid."""
    rest = len(names) - ROWS
    return f"one row for each of {', '.join(names[:ROWS])}" + (f"; {rest} more not shown" if rest > 0 else "")
