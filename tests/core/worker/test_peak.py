"""The peak: the vendor's figure for known GPUs, measured and remembered for everything else."""

from __future__ import annotations

import json

import pytest
import torch

from eflm.worker import peak as hardware
from eflm.worker.gpus import table_peak


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "eflm" / "peak-flops.json"


@pytest.mark.parametrize(
    ("name", "dtype", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989.5),
        ("NVIDIA H100 PCIe", "bfloat16", 756),
        ("NVIDIA H200", "float32", 67),
        ("NVIDIA GH200 480GB", "float16", 989.5),
        ("NVIDIA A100-SXM4-80GB", "tf32", 156),
        ("NVIDIA L4", "bfloat16", 121),
        ("NVIDIA L40S", "bfloat16", 362.05),
        ("NVIDIA GeForce RTX 4090", "bfloat16", 165.2),
    ],
)
def test_known_gpus_have_their_vendors_dense_peak(name, dtype, tflops):
    flops, source = table_peak(name, dtype)
    assert flops == tflops * 1e12
    assert source.startswith(f"table: {dtype} dense, NVIDIA ")


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", "bfloat16"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bfloat16"),
        ("NVIDIA GeForce GTX 1080", "float32"),
        ("NVIDIA H100 PCIe", "int8"),
    ],
)
def test_what_the_table_does_not_know_it_does_not_guess(name, dtype):
    assert table_peak(name, dtype) is None


def test_a_measured_peak_is_no_less_than_another_products_rate():
    flops, _ = hardware.measure_peak("cpu", "float32", budget=0.02)
    assert 1e8 < flops < 1e14


def test_a_peak_is_measured_once_and_remembered_by_dtype(monkeypatch, cache):
    measured = []

    def product(device, dtype):
        measured.append(dtype)
        return 5e9, True

    monkeypatch.setattr(hardware, "measure_peak", product)
    first = hardware.peak("cpu", "float32")
    assert hardware.peak("cpu", "float32") == first
    hardware.peak("cpu", "bfloat16")

    assert measured == ["float32", "bfloat16"]
    assert first[0] == 5e9
    assert first[1].startswith("measured: the fastest large float32 matrix product on this CPU with ")
    (identity,) = [json.loads(key) for key in json.loads(cache.read_text()) if "float32" in key]
    assert identity["threads"] == torch.get_num_threads()
    assert identity["torch"] == torch.__version__


def test_a_disturbed_measurement_is_labelled_and_not_remembered(monkeypatch, cache):
    monkeypatch.setattr(hardware, "measure_peak", lambda device, dtype: (5e9, False))

    assert "other processes" in hardware.peak("cpu", "float32")[1]
    assert not cache.exists()


def test_a_dtype_that_cannot_be_multiplied_has_no_peak():
    flops, reason = hardware.peak("cpu", "uint16")
    assert flops is None
    assert "uint16" in reason


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"x": 1}'])
def test_a_damaged_cache_is_made_anew(monkeypatch, cache, damage):
    monkeypatch.setattr(hardware, "measure_peak", lambda device, dtype: (5e9, True))
    cache.parent.mkdir(parents=True)
    cache.write_text(damage)

    assert hardware.peak("cpu", "float32")[0] == 5e9
    assert "float32" in cache.read_text()


def test_a_cache_that_cannot_be_written_is_done_without(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(hardware, "measure_peak", lambda device, dtype: (5e9, True))

    assert hardware.peak("cpu", "float32")[0] == 5e9
