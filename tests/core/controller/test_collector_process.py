"""Metric collectors run in a process that can be killed: a bad one costs only its own metrics."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from eflm import load_plugins
from eflm.controller import collector_process
from eflm.controller.collector_process import CollectorProcess
from eflm.planning.compose import compose
from eflm.planning.plan import Plan
from eflm.protocol.record import Hardware, StageRecord
from eflm_schemas import RunSpec
from support.known import PIECE, Known, gone
from support.site import Site

#: A distribution with four collectors that fail and one that does not. Each announces a metric of its own name.
BAD = """
    import os
    import sys
    import time

    import eflm
    from eflm_schemas import Metric, MetricCard, MetricInfo, Ref


    class Collector:
        def __init__(self, name):
            self.name = name

        def collect(self, record):
            print("through print")
            os.write(1, b"through the descriptor")
            if self.name == "hangs" and os.path.exists(os.environ["HANG"]):
                time.sleep(3600)
            if self.name == "exits":
                os._exit(3)
            if self.name == "leaves":
                sys.exit(0)
            if self.name == "raises":
                raise ZeroDivisionError("by design")
            return {self.name: Metric(value=1.0, unit="s", provenance="clock")}


    NAMES = ("hangs", "exits", "leaves", "raises", "prints")
    for name in NAMES:
        globals()[name] = lambda options, name=name: Collector(name)


    @eflm.hookimpl
    def eflm_metric_collector():
        return [
            MetricCard(
                name=name,
                summary="a collector",
                source="this test suite",
                factory=Ref(f"bad_collectors:{name}"),
                metrics=(MetricInfo(name, "s", "lower", "never collected"),),
                modalities=("known",),
            )
            for name in NAMES
        ]
"""
RECORD = StageRecord(
    stage="infer",
    windows=(),
    samples=(),
    model=None,
    hardware=Hardware(
        device="cpu", dtype="float32", peak_flops=None, peak_source="", memory_bytes=1, energy_source=None
    ),
)


@pytest.fixture
def installed_bad(site: Site, monkeypatch, tmp_path) -> Site:
    """Install known-amounts and bad-collectors. The collector "hangs" does so while the file $HANG exists."""
    site.install("known-amounts", PIECE.read_text())
    site.install("bad-collectors", BAD)
    monkeypatch.syspath_prepend(str(site.root))
    monkeypatch.setenv("HANG", str(tmp_path / "hang"))
    return site


@pytest.fixture
def plan(installed_bad) -> Plan:
    spec = RunSpec(model="amounts", modality="known", stages=("infer",), device="cpu")
    return compose(spec, load_plugins())


@pytest.fixture
def collector(plan) -> Iterator[CollectorProcess]:
    process = CollectorProcess(plan.spec)
    yield process
    process.close()


def test_each_bad_collector_costs_only_its_own_metrics(plan, collector, tmp_path, monkeypatch, capfd):
    (tmp_path / "hang").touch()
    collector.start()
    collector.wait_until_ready()
    monkeypatch.setattr(collector_process, "COLLECTOR_SECONDS", 2.0)
    metrics, flags = collector.collect(RECORD, plan)

    failed = {name: metrics[name].reason for name in ("hangs", "exits", "leaves", "raises", "faulty")}
    assert all(reason is not None for reason in failed.values())
    assert "2 s" in failed["hangs"]
    assert "process" in failed["exits"]
    assert "SystemExit" in failed["leaves"]
    assert "ZeroDivisionError" in failed["raises"]
    assert metrics["prints"].value == 1.0
    # Collectors of other distributions are called too.
    assert {"AL", "AMU"} <= set(metrics)
    assert {flag.stage for flag in flags} == {"infer"}
    details = {name: next(f.detail for f in flags if f"metric/{name} " in f.detail) for name in failed}
    assert all("bad-collectors 1.0" in details[name] for name in ("hangs", "exits", "leaves", "raises"))
    assert "known-amounts 1.0" in details["faulty"]
    assert capfd.readouterr().out == ""


def test_the_deadline_of_the_run_ends_a_collector_too(plan, collector, tmp_path):
    (tmp_path / "hang").touch()
    collector.start()
    collector.wait_until_ready()
    begin = time.monotonic()
    metrics, flags = collector.collect(RECORD, plan, deadline=begin + 1)
    assert time.monotonic() - begin < 5
    # No figure disappears: whatever was not collected says why.
    assert {"hangs", "prints", "AL", "AMU"} <= set(metrics)
    assert all("--timeout" in metric.reason for metric in metrics.values())
    assert flags


def test_the_deadline_of_the_run_ends_the_wait_for_imports(collector):
    collector.start()
    begin = time.monotonic()
    collector.wait_until_ready(deadline=begin)
    assert time.monotonic() - begin < 1


def test_no_process_outlives_close(plan, collector):
    collector.start()
    collector.wait_until_ready()
    children = psutil.Process().children()
    (pid,) = [child.pid for child in children if "eflm.controller.collector_process" in child.cmdline()]
    collector.close()
    assert gone(pid)
    collector.close()  # does nothing


def test_a_document_on_standard_output_is_whole(installed_bad, tmp_path):
    """As `eflm bench --json` with collectors and a worker that print through Python and through the descriptor."""
    arguments = Known(tmp_path / "log.jsonl").command("infer")
    done = subprocess.run(
        [sys.executable, "-m", "eflm", *arguments, f"--results={tmp_path / 'results'}", "--json"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    metrics = document["stages"]["infer"]["metrics"]
    assert metrics["AL"]["value"] > 0
    assert metrics["prints"]["value"] == 1.0
    for name in ("exits", "leaves", "raises"):
        assert metrics[name]["provenance"] == "unavailable"
    flagged = " ".join(flag["detail"] for flag in document["flags"] if flag["name"] == "metric_failed")
    assert all(f"metric/{name} (bad-collectors 1.0)" in flagged for name in ("exits", "leaves", "raises"))
