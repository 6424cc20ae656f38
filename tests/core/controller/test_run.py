"""Runs of the known-amounts modality: measured figures match the known ones, and every failure becomes a result."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from attrs import evolve
from click.testing import CliRunner

from eflm import bench
from eflm.cli.main import main
from eflm.controller.run_options import RunOptions, Terminated
from eflm.errors import EflmError
from eflm.planning.keys import chain
from eflm.results import stages as saved
from eflm.results.store import load, path_of
from support.known import REHEARSAL_AND_WARMUP, Known, gone

#: Every training step leaves memory behind, which must not count as memory of inference.
AMOUNTS = {
    "known.seconds": 0.3,
    "known.megabytes": 200,
    "known.matrix": 256,
    "known.leak": 20,
    "known.artifact": "notes.txt",
}


@pytest.fixture(scope="module")
def finished(installed, tmp_path_factory) -> Iterator[SimpleNamespace]:
    """Run pretraining and inference once; the tests below look at different parts of what it left."""
    folder = tmp_path_factory.mktemp("finished")
    with installed():
        known, progress = Known(folder / "log.jsonl"), []
        results = folder / "results"
        plan = known.plan("pretrain", "infer", settings=AMOUNTS, keep_timings=True)
        calls = sys.modules["known_amounts"].CALLS
        calls.clear()
        result = known.run(
            "pretrain",
            "infer",
            settings=AMOUNTS,
            keep_timings=True,
            options=RunOptions(results=results),
            progress=lambda *step: progress.append(step),
        )
        assert result.status == "ok", result.reason
        yield SimpleNamespace(
            plan=plan,
            known=known,
            result=result,
            results=results,
            progress=progress,
            calls=list(calls),
        )


# --- figures ------------------------------------------------------------------------------------------


def test_figures_of_training_match_the_known_amounts(finished):
    metrics = finished.result.stages["pretrain"].metrics
    steps = finished.known.log("pretrain")[REHEARSAL_AND_WARMUP:]
    assert len(steps) == 4
    seconds = sum(step["seconds"] for step in steps)
    assert metrics["AL"].value == pytest.approx(seconds / 4, rel=0.03)
    assert metrics["AL"].n == 4
    assert metrics["tokens_per_second"].value == pytest.approx(4 * 30 / seconds, rel=0.03)
    assert metrics["TT"].value == pytest.approx(4 * 30 / 110 / seconds, rel=0.03)
    assert metrics["FLOPS"].value == pytest.approx(4 * 2 * 256**3 / seconds, rel=0.03)
    peak = finished.result.facts["pretrain"]["peak_flops"]
    assert metrics["PCU"].value == pytest.approx(metrics["FLOPS"].value / peak)
    # A step allocates memory for about half of its time. The average contains that share, and the peak all of it.
    floor = sum(step["before"] for step in steps) / 4
    held = sum(step["during"] - step["before"] for step in steps) / 4
    assert held == pytest.approx(200e6, rel=0.02)
    share = sum(step["full"] for step in steps) / seconds
    assert share == pytest.approx(0.5, abs=0.2)
    # Samples come late when other tests use the cores; on a quiet machine the average is within 2%.
    assert metrics["AMU"].value * 1e9 == pytest.approx(floor + share * held, rel=0.06)
    peak_memory = max(step["during"] for step in steps)
    assert metrics["peak_memory"].value * 1e9 == pytest.approx(peak_memory, rel=0.03)
    assert metrics["memory_weights"].value * 1e9 == pytest.approx(4 * 110)
    assert metrics["memory_gradients"].value * 1e9 == pytest.approx(4 * 100)  # the loss does not use the bias
    parts = sum(metrics[f"{part}_time"].value for part in ("forward", "backward", "optimizer"))
    assert parts == pytest.approx(metrics["AL"].value, rel=0.03)
    assert 0 < metrics["AMU_fraction"].value < 1
    assert "communication_time" not in metrics


def test_figures_of_inference_match_the_known_amounts(finished):
    metrics = finished.result.stages["infer"].metrics
    requests = finished.known.log("infer")[-4:]
    decode = sum(request["seconds"] for request in requests)
    prefill = sum(request["prefill"] for request in requests)
    assert metrics["IT"].value == pytest.approx(4 * 12 / (decode + prefill), rel=0.03)
    assert metrics["TPOT"].value == pytest.approx(decode / 4 / 3, rel=0.03)
    assert metrics["TTFT"].value == pytest.approx(prefill / 4, rel=0.1)
    assert metrics["MCR"].value == 1.0
    assert not {"ST", "TT"} & set(metrics)


def test_every_stage_runs_in_its_own_worker(finished):
    pids = {stage: {line["pid"] for line in finished.known.log(stage)} for stage in ("pretrain", "infer")}
    assert [len(of_stage) for of_stage in pids.values()] == [1, 1]
    assert not pids["pretrain"] & pids["infer"]
    assert os.getpid() not in pids["pretrain"] | pids["infer"]
    assert all(gone(pid) for of_stage in pids.values() for pid in of_stage)


def test_inference_after_training_has_the_memory_of_inference_alone(finished, known):
    settings = {name: value for name, value in AMOUNTS.items() if name != "known.artifact"}
    alone = known.run("infer", settings=settings).stages["infer"].metrics
    after = finished.result.stages["infer"].metrics
    for name in ("AMU", "peak_memory"):
        assert after[name].value == pytest.approx(alone[name].value, rel=0.05), name
    # Of so small a model 5% is less than what reading any checkpoint takes; training has left 120 MB behind.
    assert after["unique_memory"].value == pytest.approx(alone["unique_memory"].value, abs=0.01)


@pytest.mark.slow
def test_inference_of_nano_after_training_has_the_memory_of_inference_alone():
    settings = {
        "pretrain.steps": 4,
        "pretrain.batch_size": 16,
        "infer.requests": 20,
        "infer.seconds": 0,
        "llm.eval_tokens": 1024,
    }
    after = bench(stages=["pretrain", "infer"], settings=settings, device="cpu")
    alone = bench(
        stages=["infer"], settings={k: v for k, v in settings.items() if "pretrain" not in k}, device="cpu"
    )
    for name in ("AMU", "peak_memory", "unique_memory"):
        one, other = (result.stages["infer"].metrics[name].value for result in (after, alone))
        assert one == pytest.approx(other, rel=0.05), name


def test_kept_timings_are_those_of_the_figures(finished):
    stage = finished.result.stages["pretrain"]
    assert len(stage.timings["step"]) == 4
    assert sum(stage.timings["step"]) / 4 == pytest.approx(stage.metrics["AL"].value)
    assert {"data", "forward", "backward", "optimizer"} <= set(stage.timings)


def test_a_change_of_the_wall_clock_changes_no_figure(known, monkeypatch):
    jumps = count(0, 3600)
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    monkeypatch.setattr(time, "time_ns", lambda: next(jumps) * 10**9)
    begin = time.monotonic()
    result = known.run("pretrain", settings={"known.seconds": 0.05}, isolation="none")
    assert result.status == "ok", result.reason
    assert result.seconds < time.monotonic() - begin + 1
    measured = [line["seconds"] for line in known.log("pretrain")[REHEARSAL_AND_WARMUP:]]
    assert result.stages["pretrain"].metrics["AL"].value == pytest.approx(sum(measured) / 4, rel=0.1)
    assert "not_isolated" in [flag.name for flag in result.flags]


# --- what a run leaves --------------------------------------------------------------------------------


def test_result_and_stages_are_saved_under_the_keys_of_the_plan(finished):
    result, results = finished.result, finished.results
    assert load(path_of(results, result)) == result
    links = chain(finished.plan).links
    assert {link.name: link.key for link in links} == {name: s.key for name, s in result.stages.items()}
    assert result.key == links[-1].key
    for link in links:
        document = saved.find_stage(results, link.key)
        assert (document.stage, document.result) == (link.name, result.stages[link.name])
        assert document.facts == result.facts[link.name]
    # Nobody asked to keep the checkpoint between the stages.
    assert {path.name for path in results.iterdir() if path.is_dir()} == {"stages", "quality"}


def test_artifacts_are_saved_next_to_the_result(finished):
    stem = path_of(finished.results, finished.result).stem
    for name, stage in finished.result.stages.items():
        assert stage.artifacts == (f"{stem}.{name}.notes.txt",)
        assert (finished.results / stage.artifacts[0]).read_text() == f"after {name}"


def test_a_result_contains_its_provenance(finished):
    result = finished.result
    assert result.environment.device == "cpu"
    assert result.environment.threads >= 1
    assert result.environment.packages["torch"].startswith("2.")
    assert ("modality/known", "known-amounts", "1.0") in [
        (origin.plugin, origin.distribution, origin.version) for origin in result.plugins
    ]
    assert result.options["infer"]["requests"] == 4
    assert result.facts["purpose"] == "testing"
    assert result.facts["infer"]["parameters"] == 110
    assert result.facts["infer"]["bytes"] == 440
    assert result.spec.stages == ("pretrain", "infer")


def test_a_collector_that_raises_costs_only_its_own_metrics(finished):
    for name, stage in finished.result.stages.items():
        assert stage.metrics["faulty"].provenance == "unavailable"
        assert "ZeroDivisionError" in stage.metrics["faulty"].reason
        assert stage.metrics["AL"].value > 0
        (flag,) = [f for f in finished.result.flags if (f.name, f.stage) == ("metric_failed", name)]
        assert all(fact in flag.detail for fact in ("metric/faulty", "known-amounts 1.0"))


def test_progress_is_reported_stage_by_stage(finished):
    assert ("pretrain", 5, 5) in finished.progress
    assert [step for step in finished.progress if step[0] in ("pretrain", "infer")][-1] == ("infer", 4, 4)


def test_observers_are_called_in_order(finished):
    keys = {name: stage.key for name, stage in finished.result.stages.items()}
    assert [call[:2] for call in finished.calls] == [
        ("run_started", keys),
        ("stage_started", "pretrain"),
        ("stage_finished", "pretrain"),
        ("stage_started", "infer"),
        ("stage_finished", "infer"),
        ("run_finished", finished.result),
    ]


def test_an_artifact_outside_the_results_folder_is_not_written(known, tmp_path):
    options = RunOptions(results=tmp_path / "results")
    result = known.run("pretrain", settings={"known.artifact": "../notes.txt"}, options=options)
    assert result.status == "ok"
    assert "event_lost" in [flag.name for flag in result.flags]
    assert result.stages["pretrain"].artifacts == ()
    assert not (tmp_path / "notes.txt").exists()


@pytest.mark.slow
def test_a_spawned_worker_does_the_same(known):
    result = known.run("pretrain", "infer", isolation="spawn")
    assert result.status == "ok", result.reason
    assert len({line["pid"] for line in known.log()}) == 2
    assert result.stages["infer"].metrics["AL"].n == 4


# --- failures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trouble", "facts"),
    [
        ("SIGKILL", ["SIGKILL", "memory"]),
        ("SIGSEGV", ["SIGSEGV"]),
        ("exit", ["status 3", "goodbye"]),
        ("bug", ["KeyError", "by design"]),
        ("memory", ["out of memory"]),
        ("nan", ["nan", "step 1", "pretrain"]),
        ("refusal", ["refused by design"]),
    ],
)
def test_a_worker_that_fails_makes_a_failed_result(known, tmp_path, trouble, facts):
    result = known.run("pretrain", settings={"known.trouble": trouble}, options=RunOptions(results=tmp_path))
    assert result.status == "failed"
    assert all(fact in result.reason for fact in facts)
    assert result.stages == {}
    assert "worker_log" in result.facts
    assert load(path_of(tmp_path, result)).reason == result.reason
    assert [path.suffix for path in tmp_path.iterdir() if path != known.path] == [".json"]


def trouble_in_inference(trouble: str) -> dict[str, object]:
    """Settings with which pretraining finishes and inference fails after its first request."""
    return {"known.trouble": trouble, "known.trouble_stage": "infer"}


def check_first_stage_is_kept(results: Path, known: Known, words: str) -> None:
    """Check that the first stage is in the result file and in its own, and that no checkpoint is left."""
    (path,) = results.glob("*.json")
    result = load(path)
    assert result.status == "failed"
    assert words in result.reason
    assert list(result.stages) == ["pretrain"]
    assert result.stages["pretrain"].metrics["AL"].n == 4
    document = saved.find_stage(results, result.stages["pretrain"].key)
    assert document.result == result.stages["pretrain"]
    assert not (results / "checkpoints").exists()
    assert all(gone(pid) for pid in {line["pid"] for line in known.log()} - {os.getpid()})


def test_a_finished_stage_outlives_a_failure_of_the_next(known, tmp_path):
    settings, options = trouble_in_inference("refusal"), RunOptions(results=tmp_path / "results")
    result = known.run("pretrain", "infer", settings=settings, options=options)
    assert result.facts["pretrain"]["parameters"] == 110
    check_first_stage_is_kept(tmp_path / "results", known, "refused by design")


@pytest.mark.usefixtures("finished")  # its fork server runs, so that the timeout covers no imports
def test_a_timeout_keeps_the_finished_stage_and_exits_with_1(known, tmp_path):
    arguments = known.command("pretrain", "infer", settings=trouble_in_inference("hang"))
    begin = time.monotonic()
    done = CliRunner().invoke(
        main, [*arguments, f"--results={tmp_path / 'results'}", "--timeout=8", "--json"]
    )
    assert done.exit_code == 1
    assert time.monotonic() - begin < 20
    assert json.loads(done.stdout)["status"] == "failed"
    check_first_stage_is_kept(tmp_path / "results", known, "--timeout")


def test_a_signal_is_not_replaced_by_a_result_that_cannot_be_saved(known, tmp_path, monkeypatch):
    """Otherwise a sweep would continue with its next run."""

    def full(*_):
        raise EflmError("no space left")

    def interrupted(*_arguments, **_keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr("eflm.controller.run.run_step", interrupted)
    monkeypatch.setattr("eflm.controller.run.store.save", full)
    with pytest.raises(KeyboardInterrupt) as raised:
        known.run("infer", isolation="none", options=RunOptions(results=tmp_path / "results"))
    assert raised.value.__notes__ == ["no space left"]


def test_termination_while_a_thread_starts_ends_the_run(known, monkeypatch):
    """Without a worker, the signal may arrive while the thread starts that reads the events."""

    def interrupted(thread):
        start(thread)
        if thread.name.endswith("(_add_all)"):
            raise Terminated

    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(Terminated):
        known.run("infer", isolation="none")
    assert not [thread for thread in threading.enumerate() if thread.name.endswith("(_add_all)")]


@pytest.mark.parametrize(
    ("number", "code", "isolation"),
    [
        pytest.param(signal.SIGINT, 130, "forkserver", id="SIGINT"),
        pytest.param(signal.SIGTERM, 143, "forkserver", id="SIGTERM"),
        pytest.param(signal.SIGTERM, 143, "none", id="SIGTERM-without-a-worker"),
    ],
)
def test_a_signal_keeps_the_finished_stage(known, tmp_path, number, code, isolation):
    def send() -> None:
        wait_for_inference(known)
        os.kill(os.getpid(), number)

    arguments = known.command("pretrain", "infer", settings=trouble_in_inference("hang"), isolation=isolation)
    sender = threading.Thread(target=send)
    sender.start()
    begin = time.monotonic()
    done = CliRunner().invoke(main, [*arguments, f"--results={tmp_path / 'results'}"])
    sender.join()
    assert done.exit_code == code
    assert time.monotonic() - begin < 30
    check_first_stage_is_kept(tmp_path / "results", known, number.name)


def test_a_killed_parent_leaves_the_finished_stage_and_no_process(known, tmp_path):
    results = tmp_path / "results"
    command = start_command(known, results)
    try:
        wait_for_inference(known)
        family = psutil.Process(command.pid).children(recursive=True)
        assert known.log("infer")[0]["pid"] in [child.pid for child in family]
    finally:
        command.kill()
        command.wait()
    assert all(gone(child.pid) for child in family)
    (document,) = (results / "stages").glob("*.json")
    assert saved.find_stage(results, document.stem).result.metrics["AL"].n == 4
    # The next run in that folder deletes what the killed one could not.
    (abandoned,) = (results / "checkpoints").iterdir()
    assert known.run("pretrain", "infer", options=RunOptions(results=results)).status == "ok"
    assert not abandoned.exists()


def start_command(known: Known, results: Path) -> subprocess.Popen[bytes]:
    """Start `eflm bench`, whose inference hangs after the first request."""
    arguments = known.command("pretrain", "infer", settings=trouble_in_inference("hang"))
    return subprocess.Popen(
        [sys.executable, "-m", "eflm", *arguments, f"--results={results}"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def wait_for_inference(known: Known) -> None:
    """Return when the first request is logged; the next one hangs."""
    deadline = time.monotonic() + 60
    while not (known.path.exists() and known.path.read_text().endswith("\n") and known.log("infer")):
        assert time.monotonic() < deadline, "inference did not start"
        time.sleep(0.05)


def test_an_interrupt_from_python_keeps_the_finished_stage(known, tmp_path):
    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "infer":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        known.run("pretrain", "infer", progress=interrupt, options=RunOptions(results=tmp_path / "results"))
    check_first_stage_is_kept(tmp_path / "results", known, "SIGINT")


def test_a_full_disk_prints_the_result_and_exits_with_1(known, tmp_path, monkeypatch):
    def refuse(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("eflm.files.os.fsync", refuse)
    arguments = known.command("pretrain", "infer")
    done = CliRunner().invoke(main, [*arguments, f"--results={tmp_path / 'results'}", "--json"])
    assert done.exit_code == 1
    document = json.loads(done.stdout)
    assert document["status"] == "failed"
    assert os.strerror(errno.ENOSPC) in document["reason"]
    assert document["stages"]["infer"]["metrics"]["AL"]["value"] > 0
    assert os.strerror(errno.ENOSPC) in done.stderr
    assert not list((tmp_path / "results").rglob("*.json"))


def test_a_results_folder_that_cannot_be_written_is_refused_before_the_run(known, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EflmError, match="file/results"):
        known.run("pretrain", options=RunOptions(results=tmp_path / "file" / "results"))
    assert not known.path.exists()


# --- reuse and checkpoints ----------------------------------------------------------------------------


def test_reuse_skips_finished_stages(known, tmp_path):
    options = RunOptions(results=tmp_path / "results", reuse=True, keep_checkpoints=True)

    def stages_run(**settings: object) -> set[str]:
        """Run with reuse; return the stages that a worker ran."""
        nonlocal result
        known.clear()
        named = {name.replace("__", "."): value for name, value in settings.items()}
        result = known.run("pretrain", "infer", settings=named, options=options)
        assert result.status == "ok", result.reason
        return {line["stage"] for line in known.log()}

    result = None
    assert stages_run() == {"pretrain", "infer"}
    first = result
    # Nothing changed: no worker starts, and the result is that of the first run.
    assert stages_run() == set()
    assert (result.key, result.facts["infer"]) == (first.key, first.facts["infer"])
    for name, stage in result.stages.items():
        assert stage.reused is not None
        assert evolve(stage, reused=None) == first.stages[name]
    # Only what changed runs, from the checkpoint that was kept.
    assert stages_run(infer__requests=3) == {"infer"}
    assert result.stages["pretrain"].reused is not None
    assert result.stages["infer"].metrics["AL"].n == 3
    # Without the checkpoint, pretraining is needed again.
    for folder in (tmp_path / "results" / "checkpoints").iterdir():
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    assert stages_run(infer__requests=2) == {"pretrain", "infer"}
    # A run of the first stage only needs no checkpoint at all.
    known.clear()
    assert known.run("pretrain", options=options).stages["pretrain"].reused is not None
    assert known.log() == []
    # Without --reuse everything runs.
    known.clear()
    assert known.run("pretrain", options=evolve(options, reuse=False)).stages["pretrain"].reused is None
    assert known.log("pretrain")
