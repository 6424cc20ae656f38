"""The watching side of a run: known amounts come back right, and every way to die becomes a result."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from itertools import count

import psutil
import pytest
from attrs import evolve

from eflm import bench
from eflm.controller.run import key, run
from eflm.errors import EflmError
from eflm.results.store import load, path_of
from support.known import gone


@pytest.mark.parametrize("isolation", ["spawn", "forkserver"])
def test_known_amounts_come_back_right(known, tmp_path, isolation):
    plan = known.plan("pretrain", "infer", known__seconds=0.4, known__megabytes=400, known__matrix=256)
    result = run(evolve_spec(plan, isolation=isolation), results=tmp_path / "results")

    assert result.status == "ok", result.reason
    metrics = result.stages["pretrain"].metrics
    steps = known.log()[2:6]  # after the rehearsal and the warm-up
    seconds = sum(step["seconds"] for step in steps)
    assert metrics["AL"].value == pytest.approx(seconds / 4, rel=0.03)
    assert metrics["AL"].n == 4
    assert metrics["tokens_per_second"].value == pytest.approx(4 * 30 / seconds, rel=0.03)
    assert metrics["TT"].value == pytest.approx(4 * 30 / 110 / seconds, rel=0.03)
    assert metrics["FLOPS"].value == pytest.approx(4 * 2 * 256**3 / seconds, rel=0.03)
    peak = result.facts["pretrain"]["peak_flops"]
    assert metrics["PCU"].value == pytest.approx(metrics["FLOPS"].value / peak)
    # Held for about half of each step, so the time average is that share of it above the floor, and the peak the whole.
    floor = sum(step["before"] for step in steps) / 4
    held = sum(step["during"] - step["before"] for step in steps) / 4
    assert held == pytest.approx(400e6, rel=0.02)
    share = sum(step["full"] for step in steps) / seconds
    assert share == pytest.approx(0.5, abs=0.2)
    # Samples come late where other tests take the cores; on a quiet machine this holds to 2%.
    assert metrics["AMU"].value * 1e9 == pytest.approx(floor + share * held, rel=0.06)
    assert metrics["peak_memory"].value * 1e9 == pytest.approx(floor + held, rel=0.03)
    assert metrics["memory_weights"].value * 1e9 == pytest.approx(4 * 110)
    assert metrics["memory_gradients"].value * 1e9 == pytest.approx(4 * 100)  # the loss knows no bias
    # The parts of a step are the step; Batch and loss take no time worth mentioning.
    parts = sum(metrics[f"{part}_time"].value for part in ("forward", "backward", "optimizer"))
    assert parts == pytest.approx(metrics["AL"].value, rel=0.03)
    assert 0 < metrics["AMU_fraction"].value < 1
    assert "communication_time" not in metrics  # there was nobody to talk to

    infer = result.stages["infer"].metrics
    requests = known.log()[8:12]
    decode = sum(request["seconds"] for request in requests)
    assert infer["IT"].value == pytest.approx(4 * 12 / (decode + 4 * 0.02), rel=0.03)
    assert infer["TPOT"].value == pytest.approx(decode / 4 / 3, rel=0.03)
    assert infer["TTFT"].value == pytest.approx(0.02, rel=0.1)
    assert infer["MCR"].value == 1.0
    assert "ST" not in infer
    assert "TT" not in infer

    assert load(path_of(tmp_path / "results", result)) == result


def test_what_is_to_be_looked_at_is_saved_beside_the_result(known, tmp_path):
    plan = known.plan("pretrain", "infer", known__artifact="notes.txt")
    result = run(evolve_spec(plan, isolation="forkserver"), results=tmp_path)

    (path,) = tmp_path.glob("*.json")
    for stage in ("pretrain", "infer"):
        (name,) = result.stages[stage].artifacts
        assert name == f"{path.stem}.{stage}.notes.txt"
        assert (tmp_path / name).read_text() == f"after {stage}"
    assert load(path).stages == result.stages


def test_a_file_that_would_stand_elsewhere_is_not_written(known, tmp_path):
    plan = known.plan("pretrain", known__artifact="../notes.txt")
    result = run(evolve_spec(plan, isolation="forkserver"), results=tmp_path / "results")

    assert result.status == "ok"
    assert "event_lost" in [flag.name for flag in result.flags]
    assert result.stages["pretrain"].artifacts == ()
    assert not (tmp_path / "notes.txt").exists()


def test_raw_times_are_those_that_the_figures_are_made_of(known):
    result = run(evolve_spec(known.plan("pretrain", known__seconds=0.01), raw=True))
    stage = result.stages["pretrain"]
    assert len(stage.raw["step"]) == 4
    assert sum(stage.raw["step"]) / 4 == pytest.approx(stage.metrics["AL"].value)
    assert {"data", "forward", "backward", "optimizer"} <= set(stage.raw)
    assert run(known.plan("pretrain", known__seconds=0.01)).stages["pretrain"].raw is None


def test_what_is_less_precise_than_was_asked_for_is_flagged(known):
    def flags(precision):
        plan = evolve_spec(known.plan("pretrain", known__seconds=0.02), precision=precision)
        return [flag for flag in run(plan).flags if flag.name == "imprecise"]

    (flag,) = flags(1e-6)
    assert flag.stage == "pretrain"
    assert "±0.0% was asked for" in flag.detail
    assert "--set pretrain.steps=" in flag.detail
    assert flags(1.0) == []


def evolve_spec(plan, **changes):
    return evolve(plan, spec=evolve(plan.spec, **changes))


def test_a_result_says_where_it_is_from(known):
    result = run(known.plan("infer"))

    assert result.environment.device == "cpu"
    assert result.environment.threads >= 1
    assert result.environment.packages["torch"].startswith("2.")
    assert {"plugin": "modality/known", "distribution": "known-amounts", "version": "1.0"} in [
        {"plugin": o.plugin, "distribution": o.distribution, "version": o.version} for o in result.plugins
    ]
    assert result.options["infer"]["requests"] == 4
    assert result.facts["purpose"] == "testing"
    assert result.facts["infer"]["parameters"] == 110
    assert result.facts["infer"]["bytes"] == 440
    assert result.spec.stages == ("infer",)


def test_a_wall_clock_that_jumps_moves_no_figure(known, monkeypatch):
    jumps = count(0, 3600)
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    monkeypatch.setattr(time, "time_ns", lambda: next(jumps) * 10**9)
    plan = evolve_spec(known.plan("pretrain", known__seconds=0.05), isolation="none")
    begin = time.monotonic()
    result = run(plan)
    assert result.status == "ok", result.reason
    assert result.seconds < time.monotonic() - begin + 1
    measured = [line["seconds"] for line in known.log()[2:6]]
    assert result.stages["pretrain"].metrics["AL"].value == pytest.approx(sum(measured) / 4, rel=0.1)
    assert "not_isolated" in [flag.name for flag in result.flags]


def test_a_collector_that_fails_costs_only_its_own_metrics(known):
    result = run(known.plan("infer"))

    assert result.status == "ok"
    faulty = result.stages["infer"].metrics["faulty"]
    assert (faulty.value, faulty.provenance) == (None, "unavailable")
    assert "ZeroDivisionError: by design" in faulty.reason
    assert result.stages["infer"].metrics["AL"].value > 0
    (flag,) = [flag for flag in result.flags if flag.name == "metric_failed"]
    assert "metric/faulty (known-amounts)" in flag.detail


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("SIGKILL", "killed by SIGKILL, which usually means that the machine ran out of memory"),
        ("SIGSEGV", "the worker died by SIGSEGV"),
        ("exit", "exit status 3 before it was done; its last output was: goodbye"),
        ("bug", "the worker stopped on KeyError: 'by design'"),
        ("memory", "the worker ran out of memory"),
        ("nan", "the loss became nan at step 1 of pretrain"),
    ],
)
def test_a_worker_that_fails_makes_a_failed_result(known, tmp_path, trouble, words):
    result = run(known.plan("pretrain", known__trouble=trouble), results=tmp_path)

    assert result.status == "failed"
    assert words in result.reason
    assert result.stages == {}
    assert "worker_log" in result.facts
    assert load(path_of(tmp_path, result)).reason == result.reason


def test_a_refusal_is_given_in_its_own_words(known):
    result = run(known.plan("pretrain", known__trouble="refusal"))

    assert (result.status, result.reason) == ("failed", "this model cannot be, by design")


def test_finished_stages_outlive_a_later_failure(known):
    # Without warm-up a single step is worked twice: once to be counted, once to be measured.
    plan = known.plan(
        "pretrain",
        "infer",
        pretrain__steps=1,
        pretrain__warmup_steps=0,
        known__trouble="refusal",
        known__after=3,
    )
    result = run(plan)

    assert result.status == "failed"
    assert list(result.stages) == ["pretrain"]
    assert result.stages["pretrain"].metrics["AL"].n == 1


@pytest.mark.slow
def test_a_run_that_takes_too_long_is_ended(known):
    begin = time.monotonic()
    result = run(known.plan("pretrain", known__trouble="hang", timeout=8))

    assert result.status == "failed"
    assert "not done after 8 seconds (--timeout); it was in pretrain" in result.reason
    assert time.monotonic() - begin < 15
    assert gone(known.log()[0]["pid"])


def test_an_interrupt_leaves_nothing_behind(known):
    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "pretrain" and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(known.plan("pretrain", known__seconds=0.2), progress=interrupt)

    assert gone(known.log()[0]["pid"], within=1)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_parent_that_is_killed_takes_its_worker_with_it(known, site, how):
    script = """
        import sys, eflm
        settings = {"known.trouble": "hang", "known.log": sys.argv[1], "pretrain.warmup_steps": 1}
        eflm.bench("amounts", modality="known", stages=["pretrain"], settings=settings, device="cpu")
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(known.path)],
        env={**os.environ, "PYTHONPATH": str(site.root)},
    )
    try:
        deadline = time.monotonic() + 60
        while not (known.path.exists() and known.path.read_text().endswith("\n")):
            assert time.monotonic() < deadline, "the worker did not come so far"
            time.sleep(0.05)
        (worker,) = {line["pid"] for line in known.log()}
        assert psutil.pid_exists(worker)
        parent.send_signal(how)
        parent.wait(10)
    finally:
        parent.kill()

    assert gone(worker)


def test_progress_is_told_stage_by_stage(known):
    told = []
    run(known.plan("pretrain", "infer"), progress=lambda *step: told.append(step))

    assert ("pretrain", 5, 5) in told
    assert told[-1] == ("infer", 4, 4)


def test_results_that_cannot_be_saved_are_refused_before_the_run(known, tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(EflmError, match=r"results cannot be saved in .*file/results"):
        run(known.plan("pretrain"), results=tmp_path / "file" / "results")
    assert not known.path.exists()


def test_the_key_is_that_of_the_question(known):
    def asked(facts=None, **changes):
        return key(
            known.plan("infer", **changes).with_device("cpu"), result.environment, facts or result.facts
        )

    result = run(known.plan("infer"))
    assert asked() == result.key
    assert asked(timeout=9) == result.key
    assert asked(seed=1) != result.key
    assert asked({"purpose": "another"}) != result.key
    assert run(known.plan("infer", device="cpu")).key == result.key


@pytest.mark.slow
def test_a_stage_is_not_charged_for_the_memory_of_earlier_ones():
    settings = {
        "pretrain.steps": 4,
        "pretrain.batch_size": 16,
        "infer.requests": 20,
        "infer.seconds": 0,
        "llm.eval_tokens": 1024,
    }
    after = bench(stages=["pretrain", "infer"], settings=settings)
    alone = bench(stages=["infer"], settings={k: v for k, v in settings.items() if "pretrain" not in k})
    one, other = (result.stages["infer"].metrics["AMU"].value for result in (after, alone))
    assert one == pytest.approx(other, rel=0.15)
