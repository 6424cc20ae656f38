"""Forked workers start quickly, inherit nothing from each other, and end with their parent."""

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
from eflm.controller import fork_server_pool as pool
from eflm.controller.fork_server_pool import fork_server
from eflm.controller.worker_group import WorkerGroup
from eflm.planning.compose import compose
from eflm.protocol.order import WorkerOrder
from eflm_schemas import RunSpec


@pytest.fixture(scope="module")
def server():
    """One server for the tests of this module; none of them changes its environment."""
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


def group_of(spec, preload=()):
    return WorkerGroup(WorkerOrder(spec=spec, step="infer"), spec, preload)


def events(group):
    return [json.loads(line) for _, line in group.lines() if line is not None]


def test_a_worker_is_ready_in_half_a_second(server, spec):
    waits = []
    for _ in range(3):
        begin = time.perf_counter()
        with group_of(spec) as group:
            for _, line in group.lines():
                if json.loads(line)["event"] == "device":
                    waits.append(time.perf_counter() - begin)
                    break
    assert min(waits) <= 0.5


@pytest.mark.slow
def test_a_forked_worker_does_the_same_as_a_spawned_one(server, spec):
    sent = []
    for isolation in ("forkserver", "spawn", "forkserver"):
        with group_of(evolve(spec, isolation=isolation)) as group:
            sent.append(events(group))
            assert group.workers[0].wait() == 0
            (pid,) = group.pids
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    # The model has the same seed and text, and no worker sees the random state of an earlier one.
    qualities = [[e["quality"] for e in run if e["event"] == "quality"] for run in sent]
    assert qualities[0] == qualities[1] == qualities[2]
    devices = [[e for e in run if e["event"] == "device"] for run in sent]
    assert devices[0] == devices[1]  # including threads and the settings of OpenMP


@pytest.mark.slow
def test_several_threads_may_start_workers(server, spec):
    ended = []

    def work():
        with group_of(spec) as group:
            ended.append((events(group)[-1]["event"], group.workers[0].wait()))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert ended == [("done", 0)] * 3


def test_the_signal_that_ended_a_worker_is_reported(server, spec):
    with group_of(spec) as group:
        next(group.lines())
        os.kill(group.pids[0], signal.SIGSEGV)
        list(group.lines())
        assert group.workers[0].wait() == -signal.SIGSEGV
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

    monkeypatch.setattr(pool, "ForkServer", Started)
    monkeypatch.setattr(pool, "_servers", dict(pool._servers))
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
    # The most recently used idle servers are kept.
    assert closed == []
    monkeypatch.setattr(pool, "_servers", {})
    several = [fork_server([str(number)]) for number in range(pool.MOST_SERVERS + 2)]
    assert closed == several[:2]
    busy = several[2]
    busy.idle = False
    fork_server(["one more"])
    assert closed == [*several[:2], several[3]]


@pytest.mark.slow
def test_a_server_whose_imports_touched_a_gpu_forks_nothing(spec, tmp_path, monkeypatch):
    (tmp_path / "touches.py").write_text("import torch\ntorch.cuda.is_initialized = lambda: True\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with group_of(spec, ["touches"]) as group:
        assert "CUDA" in group.fallback
        assert events(group)[-1]["event"] == "done"


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
