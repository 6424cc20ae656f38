"""Forked workers: ready at once, as fresh as spawned ones, and gone with whoever asked for them."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress

import psutil
import pytest
from attrs import evolve

from eflm import load_plugins
from eflm.controller import fork_server_pool as process
from eflm.controller.fork_server_pool import fork_server
from eflm.controller.worker_group import Team
from eflm.planning.compose import compose
from eflm_schemas import RunSpec


@pytest.fixture(scope="module")
def server():
    """One server for this module's tests, whose environment none of them changes."""
    server = fork_server()
    server.wait_until_ready()
    return server


@pytest.fixture(scope="module")
def spec():
    settings = {
        "llm.eval_tokens": 256, "infer.requests": 2, "infer.seconds": 0, "infer.prompt_tokens": 8,
        "infer.new_tokens": 2,
    }  # fmt: skip
    plan = compose(RunSpec(stages=("infer",), device="cpu", settings=settings), load_plugins())
    return evolve(plan.spec, isolation="forkserver")


def events(team):
    return [json.loads(line) for _, line in team.lines() if line is not None]


def test_a_worker_is_ready_in_half_a_second(server, spec):
    waits = []
    for _ in range(3):
        begin = time.perf_counter()
        with Team(spec) as team:
            for _, line in team.lines():
                if json.loads(line)["event"] == "device":
                    waits.append(time.perf_counter() - begin)
                    break
    assert min(waits) <= 0.5


@pytest.mark.slow
def test_it_does_the_same_work_as_a_spawned_one_and_inherits_none(server, spec):
    told = []
    for isolation in ("forkserver", "spawn", "forkserver"):
        with Team(evolve(spec, isolation=isolation)) as team:
            told.append(events(team))
            assert team.workers[0].wait() == 0
            (pid,) = team.pids
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    # A model from the same seed on the same text: what a worker drew, no later one sees.
    qualities = [[e["quality"] for e in run if e["event"] == "quality"] for run in told]
    assert qualities[0] == qualities[1] == qualities[2]
    devices = [[e for e in run if e["event"] == "device"] for run in told]
    assert devices[0] == devices[1]  # threads and OpenMP's settings among them


@pytest.mark.slow
def test_threads_may_ask_at_one_time(server, spec):
    ended = []

    def work():
        with Team(spec) as team:
            ended.append((events(team)[-1]["event"], team.workers[0].wait()))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert ended == [("done", 0)] * 3


def test_a_worker_that_dies_is_told_by_its_signal(server, spec):
    with Team(spec) as team:
        next(team.lines())
        os.kill(team.pids[0], signal.SIGSEGV)
        list(team.lines())
        assert team.workers[0].wait() == -signal.SIGSEGV
    assert server.alive()


def test_another_environment_or_other_modules_have_another_server(server, monkeypatch):
    started, closed = [], []

    class Started:
        def __init__(self, environment, preload):
            started.append((environment.get("OMP_NUM_THREADS"), preload))

        idle = True

        def alive(self):
            return True

        def close(self):
            closed.append(self)

    monkeypatch.setattr(process, "ForkServer", Started)
    monkeypatch.setattr(process, "_servers", dict(process._servers))
    assert fork_server() is server
    other = fork_server(["json"])
    assert other is not server
    assert fork_server(["json"]) is other
    monkeypatch.setenv("A_WORKERS_OWN", "1")
    assert fork_server() is server
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert fork_server() is not server
    assert [entry[1] for entry in started] == [["json"], []]
    assert started[1][0] == "7"
    # No more of them stand idle than are of use, the one that was asked last among them.
    assert closed == []
    monkeypatch.setattr(process, "_servers", {})
    several = [fork_server([str(number)]) for number in range(process.MOST_SERVERS + 2)]
    assert closed == several[:2]
    busy = several[2]
    busy.idle = False
    fork_server(["one more"])
    assert closed == [*several[:2], several[3]]


def test_a_server_whose_imports_touched_a_gpu_forks_nothing(spec, tmp_path, monkeypatch):
    (tmp_path / "touches.py").write_text("import torch\ntorch.cuda.is_initialized = lambda: True\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with Team(spec, ["touches"]) as team:
        assert "CUDA" in team.fallback
        assert events(team)[-1]["event"] == "done"


PARENT = """
    import sys
    from eflm import bench
    isolation, processes, results = sys.argv[1:]
    settings = {"infer.requests": 1000, "infer.prompt_tokens": 8, "infer.new_tokens": 64, "llm.eval_tokens": 256}
    if processes == "2":
        settings = {"pretrain.steps": 1000, "pretrain.sequence_length": 64, "llm.eval_tokens": 256}
    bench(stages=("infer" if processes == "1" else "pretrain",), processes=int(processes), device="cpu",
          isolation=isolation, results=results, settings=settings)
"""


def descendants(pid):
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def storm(tmp_path, count, isolation, processes):
    """Kill `count` parents or workers at random moments; returns what was left behind."""
    script = tmp_path / "parent.py"
    script.write_text(textwrap.dedent(PARENT))
    generator, left = random.Random(0), []
    for turn in range(count):
        parent = subprocess.Popen(
            [sys.executable, str(script), isolation, str(processes), str(tmp_path / "results")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(generator.uniform(0, 12 if turn % 4 == 3 else 4))
        family = descendants(parent.pid)
        victim = generator.choice([parent.pid, *(child.pid for child in family)])
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        if victim != parent.pid and parent.poll() is None:
            time.sleep(generator.uniform(0, 0.5))
            family += descendants(parent.pid)
            parent.kill()
        parent.wait()
        _, alive = psutil.wait_procs(family, timeout=5)
        left += [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]
        folder = tmp_path / "results"
        for path in folder.iterdir() if folder.exists() else ():
            assert path.suffix == ".json", f"half a file: {path}"
            json.loads(path.read_text())
    return left


@pytest.mark.slow
@pytest.mark.parametrize(("isolation", "processes"), [("forkserver", 1), ("spawn", 1), ("forkserver", 2)])
def test_a_storm_of_kills_leaves_nothing_behind(tmp_path, isolation, processes):
    assert storm(tmp_path, int(os.environ.get("EFLM_STORM", "2")), isolation, processes) == []
