"""Every built-in collector, on records whose results can be computed by hand."""

from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from eflm.controller.collect import collect
from eflm.planning.plan import Chosen
from eflm.protocol.energy import CarbonIntensity, PowerModel
from eflm.protocol.record import Compression, Hardware, ModelFacts, Sample, StageRecord, Window
from eflm_plugins.metrics.cards import METRICS
from eflm_schemas import Metric, PluginOrigin

SECOND = 1_000_000_000
HARDWARE = Hardware(
    device="cpu",
    dtype="float32",
    peak_flops=1e9,
    peak_source="measured: by hand",
    memory_bytes=16_000_000_000,
    energy_source=None,
    energy_reason="no counter on this bench",
)
CHOSEN = [
    Chosen(
        card=card, options=None, origin=PluginOrigin(plugin=card.address, distribution="eflm", version="1")
    )
    for card in METRICS
]


def step(begin: float, end: float, **fields) -> Window:
    window = {"name": "step", "tokens": 100, "samples": 4, "flops": 1e8} | fields
    return Window(begin=int(begin * SECOND), end=int(end * SECOND), **window)


#: A warm-up step of 1 s, then steps of 1 s and 3 s with a gap of 1 s between them.
STEPS = (step(0, 1, warmup=True, tokens=7), step(1, 2), step(3, 6))


def record(stage="pretrain", windows=STEPS, **fields) -> StageRecord:
    model = ModelFacts(parameters=50, trainable_parameters=50, bytes=200)
    return StageRecord(
        **{"stage": stage, "windows": windows, "samples": (), "model": model, "hardware": HARDWARE} | fields
    )


def figures(of: StageRecord) -> dict[str, Metric]:
    metrics, flags = collect(of, CHOSEN)
    assert flags == []
    return metrics


def sampled(**readings) -> tuple[Sample, ...]:
    """One sample per second from 0 to 6."""
    columns = {name: iter(values) for name, values in readings.items()}
    return tuple(Sample(time=t * SECOND, **{n: next(c) for n, c in columns.items()}) for t in range(7))


def test_latency_is_the_mean_of_the_measured_steps():
    latency = figures(record())["AL"]
    assert (latency.value, latency.unit, latency.provenance, latency.n) == (2.0, "s", "clock", 2)
    assert latency.sd == pytest.approx(2**0.5)
    # Student's t for one degree of freedom: 12.706 × sqrt(2) / sqrt(2)
    assert latency.ci95 == pytest.approx((2 - 12.706, 2 + 12.706), abs=1e-3)
    assert latency.percentiles["p50"] == 2.0
    assert latency.percentiles["p90"] == pytest.approx(2.8)


@pytest.mark.parametrize(
    ("stage", "name", "value", "unit"),
    [
        ("pretrain", "TT", 200 / 50 / 4, "tokens/param/s"),
        ("finetune", "ST", 8 / 50 / 4, "samples/param/s"),
    ],
)
def test_throughput_is_per_parameter_in_training(stage, name, value, unit):
    metrics = figures(record(stage))
    assert metrics[name].value == pytest.approx(value)
    assert metrics[name].unit == unit
    assert metrics["tokens_per_second"].value == 50
    assert metrics["samples_per_second"].value == 2
    assert not {"TT", "ST", "IT"} - {name} & metrics.keys()


def test_throughput_is_a_ratio_of_totals_and_not_a_mean_of_rates():
    # The rates of the steps are 100 and 33.3 tokens/s; their mean is 66.7.
    rate = figures(record())["tokens_per_second"]
    assert rate.value == 50
    assert rate.sd == pytest.approx((100 - 100 / 3) / 2**0.5)


def test_a_model_without_parameters_has_no_throughput_per_parameter():
    empty = ModelFacts(parameters=0, trainable_parameters=0, bytes=0)
    assert "no parameters" in figures(record(model=empty))["TT"].reason


def test_pcu_is_counted_operations_over_time_and_peak():
    metrics = figures(record())
    assert metrics["FLOPS"].value == pytest.approx(2e8 / 4)
    assert metrics["PCU"].value == pytest.approx(0.05)
    assert "measured: by hand" in metrics["PCU"].note


def test_pcu_needs_operations_and_a_peak():
    uncounted = tuple(evolve(window, flops=None) for window in STEPS)
    assert "not counted" in figures(record(windows=uncounted))["PCU"].reason
    unknown = evolve(HARDWARE, peak_flops=None, peak_source="no such dtype")
    metrics = figures(record(hardware=unknown))
    assert "no such dtype" in metrics["PCU"].reason
    assert metrics["FLOPS"].value == pytest.approx(5e7)


def test_pcu_above_1_is_reported_with_a_note():
    low = evolve(HARDWARE, peak_flops=1e6)
    metric = figures(record(hardware=low))["PCU"]
    assert metric.value == pytest.approx(50)
    assert "above 1" in metric.note


def test_memory_is_averaged_over_the_measured_windows_only():
    # 2 GB in the first step, a rise in the gap, 4 GB in the second: (1 × 2 + 3 × 4) / 4
    rss = [9e9, 2e9, 2e9, 4e9, 4e9, 4e9, 4e9]
    metrics = figures(record(samples=sampled(rss=rss)))
    assert metrics["AMU"].value == pytest.approx(3.5)
    assert metrics["AMU"].provenance == "sampled"
    assert metrics["AMU_fraction"].value == pytest.approx(3.5 / 16)
    assert metrics["peak_memory"].value == 4.0
    assert metrics["AMU"].n == 6


def test_memory_on_a_gpu_is_that_of_the_worker_if_nvml_reports_it():
    gpu = evolve(HARDWARE, device="cuda")
    samples = sampled(rss=[1e9] * 7, device_used=[6e9] * 7, device_process=[5e9] * 7)
    assert figures(record(hardware=gpu, samples=samples))["AMU"].value == 5.0
    without_process = sampled(rss=[1e9] * 7, device_used=[6e9] * 7)
    metrics = figures(record(hardware=gpu, samples=without_process, facts={"peak_allocated_bytes": 3e9}))
    assert metrics["AMU"].value == 6.0
    assert "all processes" in metrics["AMU"].note
    assert metrics["peak_allocated"].value == 3.0
    assert "peak_reserved" not in metrics


def test_memory_without_samples_is_unavailable():
    assert "no memory samples" in figures(record())["AMU"].reason


def test_memory_of_a_stage_without_samples_is_interpolated():
    samples = (Sample(time=0, rss=1_000_000_000), Sample(time=10 * SECOND, rss=3_000_000_000))
    metrics = figures(record(windows=(step(5, 5.001),), samples=samples))
    assert metrics["AMU"].value == pytest.approx(2.0, rel=1e-3)
    assert metrics["AMU"].n == 0


def test_energy_is_the_difference_of_the_counter_over_the_windows():
    # 10 W in the first step, 30 W in the gap (does not count), 20 W in the second step.
    joules = [0, 10, 20, 50, 70, 90, 110]
    counter = evolve(HARDWARE, energy_source="NVML energy counter", energy_reason=None)
    metrics = figures(record(hardware=counter, samples=sampled(energy=joules, power=[1.0] * 7)))
    assert metrics["energy"].value == pytest.approx(10 + 60)
    assert metrics["AEC"].value == pytest.approx(70 / 4)
    assert metrics["AEC"].provenance == "counter"
    assert "NVML energy counter, 6 readings" in metrics["AEC"].note
    assert metrics["energy_per_token"].value == pytest.approx(70 / 200)


def test_energy_is_integrated_from_power_without_a_counter():
    power = [0, 10, 10, 20, 20, 20, 20]
    metrics = figures(record(samples=sampled(power=[float(p) for p in power])))
    assert metrics["energy"].value == pytest.approx(10 + 60)
    assert metrics["AEC"].provenance == "sampled"


@pytest.mark.parametrize(("kept", "gap"), [(slice(3), "before it ends"), (slice(4, None), "after it begins")])
def test_readings_that_do_not_cover_the_work_are_not_used(kept, gap):
    every = sampled(rss=[1_000_000_000] * 7, power=[50.0] * 7)
    watched = evolve(HARDWARE, energy_source="NVML power", energy_reason=None)
    whole = figures(record(hardware=watched, samples=every))
    assert whole["AEC"].value == pytest.approx(50)
    assert whole["AMU"].value == pytest.approx(1)
    metrics = figures(record(hardware=watched, samples=every[kept]))
    for name in ("AEC", "energy", "AMU", "peak_memory"):
        assert metrics[name].value is None
        assert "do not cover the work" in metrics[name].reason
        assert gap in metrics[name].reason


def test_power_of_a_device_without_a_named_source_is_described():
    metrics = figures(record(samples=sampled(rss=[1_000_000_000] * 7, power=[50.0] * 7)))
    assert metrics["AEC"].value == pytest.approx(50)
    assert metrics["AEC"].note.startswith("power of the device, ")


def test_energy_is_reported_per_phase_and_sample():
    joules = [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0]
    counter = evolve(HARDWARE, energy_source="NVML energy counter", energy_reason=None)
    metrics = figures(infer(hardware=counter, samples=sampled(energy=joules)))
    assert metrics["energy"].value == pytest.approx(10)
    assert metrics["energy_per_sample"].value == pytest.approx(10 / 2)
    assert metrics["prefill_energy_per_token"].value == pytest.approx(2 / 20)
    assert metrics["decode_energy_per_token"].value == pytest.approx(6 / 6)
    assert {metrics[n].provenance for n in ("prefill_energy_per_token", "energy_per_sample")} == {"counter"}


def test_a_decreasing_energy_counter_is_not_used():
    counter = evolve(HARDWARE, energy_source="NVML energy counter", energy_reason=None)
    broken = [0.0, 10.0, 20.0, 5.0, 15.0, 25.0, 35.0]
    metrics = figures(record(hardware=counter, samples=sampled(energy=broken)))
    assert metrics["AEC"].value is None
    assert "counter decreased" in metrics["AEC"].reason
    metrics = figures(record(hardware=counter, samples=sampled(energy=broken, power=[10.0] * 7)))
    assert (metrics["AEC"].value, metrics["AEC"].provenance) == (10.0, "sampled")


MODEL = PowerModel(idle=10, busy=110, per_gb=1, source="this test")


def test_power_is_estimated_from_utilization_only_without_a_measurement():
    estimating = evolve(HARDWARE, energy_reason=None, power_model=MODEL)
    busy = {"cpu_utilization": [0.5] * 7, "rss": [2_000_000_000] * 7}
    metrics = figures(record(hardware=estimating, samples=sampled(**busy)))
    assert metrics["AEC"].value == pytest.approx(10 + 50 + 2)
    assert metrics["AEC"].provenance == metrics["energy"].provenance == "estimated"
    assert "10 W + utilization × 100 W + 1 W per GB of memory, from this test" in metrics["AEC"].note
    measured = figures(record(hardware=estimating, samples=sampled(**busy, power=[5.0] * 7)))
    assert (measured["AEC"].value, measured["AEC"].provenance) == (5.0, "sampled")


def test_carbon_is_energy_times_the_intensity_of_the_region():
    region = CarbonIntensity(region="Testland (TST)", grams_per_kwh=360, year=2023, source="this test")
    watched = evolve(HARDWARE, energy_source="NVML power", energy_reason=None, carbon=region)
    metrics = figures(record(hardware=watched, samples=sampled(power=[2500.0] * 7)))
    assert metrics["energy"].value == pytest.approx(10_000)
    assert metrics["carbon"].value == pytest.approx(1.0)  # 10 kJ is 1/360 kWh
    assert metrics["carbon"].provenance == "estimated"
    assert "360 gCO2e/kWh in Testland (TST), 2023, this test" in metrics["carbon"].note
    assert "carbon" not in figures(record(samples=sampled(power=[2500.0] * 7)))


def test_unavailable_energy_has_a_reason_and_is_not_zero():
    for name in ("AEC", "energy", "energy_per_token"):
        metric = figures(record())[name]
        assert (metric.value, metric.provenance, metric.reason) == (
            None,
            "unavailable",
            "no counter on this bench",
        )


def infer(**fields) -> StageRecord:
    windows = (
        step(0, 1, name="request", tokens=8, samples=2),
        step(0, 0.2, name="prefill", tokens=20, samples=2),
        step(0.2, 0.8, name="decode", tokens=6, samples=2),
    )
    return record("infer", windows, **fields)


def test_inference_has_figures_per_phase_and_for_generated_tokens():
    metrics = figures(infer())
    assert metrics["IT"].value == 8
    assert metrics["TTFT"].value == pytest.approx(0.2)
    # Each of two samples has three tokens after the first.
    assert metrics["TPOT"].value == pytest.approx(0.6 / 3)
    assert metrics["IT"].ci95 is None


def ppl(value: float) -> dict[str, Metric]:
    return {"PPL": Metric(value=value, unit="perplexity per token", provenance="evaluated")}


def test_mcr_is_the_size_ratio_times_the_quality_ratio():
    found = Compression(original_bytes=400, bytes=100, original_quality=ppl(8.0), quality=ppl(10.0))
    metrics = figures(infer(compression=found))
    assert metrics["MCR"].value == pytest.approx(4 * 8 / 10)
    assert metrics["compression"].value == 4.0


def test_mcr_without_a_quantizer_is_1_with_a_note():
    rate = figures(infer())["MCR"]
    assert rate.value == 1.0
    assert "not quantized" in rate.note


def test_mcr_needs_size_and_quality_of_the_original():
    metrics = figures(infer(compression=Compression(reason="quantized while it was loaded")))
    assert metrics["MCR"].reason == "quantized while it was loaded"
    without_quality = Compression(original_bytes=400, bytes=100)
    metrics = figures(infer(compression=without_quality))
    assert "PPL, FD" in metrics["MCR"].reason
    assert metrics["compression"].value == 4.0


@given(st.floats(0.1, 1e4), st.integers(1, 10**12), st.integers(1, 10**12))
def test_mcr_with_unchanged_quality_is_the_size_ratio(perplexity, before, after):
    found = Compression(
        original_bytes=before, bytes=after, original_quality=ppl(perplexity), quality=ppl(perplexity)
    )
    assert figures(infer(compression=found))["MCR"].value == pytest.approx(before / after)


def test_perplexity_is_reported_as_evaluated():
    quality = ppl(8.5) | {"unigram_ppl": ppl(700.0)["PPL"]}
    metrics = figures(record(quality=quality))
    assert metrics["PPL"] == quality["PPL"]
    assert metrics["unigram_ppl"].value == 700.0


def test_quality_without_a_collector_is_reported_as_well():
    accuracy = Metric(value=0.75, unit="ratio", provenance="evaluated")
    bits = Metric(value=1.5, unit="bits per byte", provenance="evaluated")
    metrics = figures(record(quality={"accuracy": accuracy, "PPL": bits}))
    assert metrics["accuracy"] == accuracy
    assert metrics["PPL"] == bits


def test_a_stage_without_measured_windows_has_no_values():
    metrics = figures(record(windows=STEPS[:1]))
    assert "no work" in metrics["AL"].reason
    assert all(metric.value is None for metric in metrics.values())


def test_every_figure_has_the_unit_declared_on_its_card():
    declared = {info.name: info for card in METRICS for info in card.metrics}
    assert len(declared) == sum(len(card.metrics) for card in METRICS)
    seen = figures(record(samples=sampled(rss=[1e9] * 7))) | figures(record("finetune")) | figures(infer())
    for name, metric in seen.items():
        assert metric.unit == declared[name].unit


def test_utilization_is_averaged_over_the_work():
    share = [0.0, 1.0, 1.0, 0.0, 0.5, 0.5, 0.5]
    metric = figures(record(samples=sampled(cpu_utilization=share)))["utilization"]
    # First step: 1 s at 1. Second step: 1 s from 0 to 0.5, then 2 s at 0.5.
    assert metric.value == pytest.approx((1 + 0.25 + 1) / 4)
    assert (metric.unit, metric.provenance) == ("ratio", "sampled")
    assert "utilization" not in figures(record())


def test_the_cpu_share_of_the_worker_is_not_reported_as_utilization_of_a_gpu():
    gpu = evolve(HARDWARE, device="cuda", energy_reason=None, power_model=MODEL)
    share = sampled(cpu_utilization=[0.5] * 7)
    metrics = figures(record(hardware=gpu, samples=share))
    assert metrics["utilization"].value is None
    assert "GPU" in metrics["utilization"].reason
    assert metrics["AEC"].value is None
    assert "utilization" in metrics["AEC"].reason

    busy = sampled(cpu_utilization=[0.5] * 7, utilization=[0.25] * 7)
    metrics = figures(record(hardware=gpu, samples=busy))
    assert metrics["utilization"].value == pytest.approx(0.25)
    assert metrics["AEC"].value == pytest.approx(10 + 25)
    assert figures(record(samples=busy))["utilization"].value == pytest.approx(0.5)


def test_routing_figures_are_means_over_layers():
    layers = [
        {"experts": [10, 10, 10, 10], "entropy": 1.0, "dropped": 0.0},
        {"experts": [40, 0, 0, 0], "entropy": 0.5, "dropped": 0.5},
    ]
    found = figures(record(facts={"routing": layers}))
    assert found["expert_load_max"].value == (1 + 4) / 2
    assert found["expert_load_cv"].value == pytest.approx((0 + 3**0.5) / 2)
    assert found["routing_entropy"].value == 0.75
    assert found["dropped_tokens"].value == 0.25
    assert "2 layers; maximum 4" in found["expert_load_max"].note


def test_a_dense_model_has_no_routing_figures():
    assert not {name for name in figures(record()) if "expert" in name or "routing" in name}
