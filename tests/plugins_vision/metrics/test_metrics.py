"""The metric collectors, on records whose metrics are known in advance."""

from __future__ import annotations

import pytest

from eflm.protocol.record import Hardware, StageRecord, Window
from eflm.testing.metric import MetricConformance
from eflm_schemas import Metric
from eflm_vision.metrics.answering import answering
from eflm_vision.metrics.cards import METRICS
from eflm_vision.metrics.denoising import denoising
from eflm_vision.metrics.generation import generation

HARDWARE = Hardware(
    device="cpu", dtype="float32", peak_flops=None, peak_source="", memory_bytes=1, energy_source=None
)


def record(stage="infer", windows=(), quality=None):
    return StageRecord(
        stage=stage, windows=tuple(windows), samples=(), model=None, hardware=HARDWARE, quality=quality or {}
    )


def window(name, begin, end, **fields):
    return Window(name=name, begin=int(begin * 1e9), end=int(end * 1e9), **fields)


class TestDenoising(MetricConformance):
    card = next(card for card in METRICS if card.name == "denoising")


class TestGeneration(MetricConformance):
    card = next(card for card in METRICS if card.name == "generation")


class TestAnswering(MetricConformance):
    card = next(card for card in METRICS if card.name == "answering")


def test_times_are_computed_from_the_windows():
    windows = [
        window("request", 0, 9, samples=4, warmup=True),
        window("request", 10, 12, samples=4),
        window("denoise", 10, 11.5, samples=4),
        window("denoise_step", 10, 10.5, samples=4),
        window("denoise_step", 10.5, 11.5, samples=4),
        window("decode_pictures", 11.5, 12, samples=4),
        window("request", 20, 22, samples=2),
        window("denoise", 20, 21.5, samples=2),
        window("decode_pictures", 21.5, 22, samples=2),
    ]
    found = denoising(None).collect(record(windows=windows))
    values = {name: (metric.value, metric.unit, metric.n) for name, metric in found.items()}
    assert values == {
        "images_per_second": (pytest.approx(6 / 4), "images/s", 2),
        "denoising_step_time": (pytest.approx(0.75), "s", 2),
        "denoiser_time": (pytest.approx(1.5), "s", 2),
        "decoder_time": (pytest.approx(0.5), "s", 2),
    }


def test_without_denoising_there_are_no_metrics():
    assert denoising(None).collect(record()) == {}
    assert denoising(None).collect(record(windows=[window("request", 0, 1, samples=1, tokens=8)])) == {}


def test_only_quality_metrics_with_the_name_and_unit_of_the_card_are_returned():
    declared = Metric(value=3.0, unit="feature distance", provenance="evaluated")
    other = Metric(value=3.0, unit="inches", provenance="evaluated")
    quality = {"FD": declared, "FD_floor": other, "PPL": declared}
    assert generation(None).collect(record("pretrain", quality=quality)) == {"FD": declared}


def test_encoder_time_excludes_warmup_and_accuracy_is_returned_for_every_stage():
    share = Metric(value=0.5, unit="ratio", provenance="evaluated")
    windows = [
        window("request", 0, 3, samples=1, warmup=True),
        window("encode_images", 0, 2, samples=1, warmup=True),
        window("request", 4, 6, samples=1),
        window("encode_images", 4, 4.5, samples=1),
    ]
    found = answering(None).collect(record(windows=windows, quality={"vqa_accuracy": share}))
    assert set(found) == {"vqa_accuracy", "image_encoder_time"}
    assert (found["image_encoder_time"].value, found["image_encoder_time"].n) == (pytest.approx(0.5), 1)
    assert answering(None).collect(record("finetune", quality={"vqa_accuracy": share})) == {
        "vqa_accuracy": share
    }
