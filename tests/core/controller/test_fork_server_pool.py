"""An import that hangs in a fork server ends at the deadline of the run."""

from __future__ import annotations

import time

import pytest
from attrs import evolve

from eflm.controller import fork_server, fork_server_pool, run, run_step
from eflm.controller.fork_server import ImportTimeout
from eflm.planning.compose import compose
from eflm.protocol.order import WorkerOrder
from eflm_schemas import RunSpec


@pytest.fixture
def hanging(tmp_path, monkeypatch):
    """A module whose import never ends, and the only one that servers import."""
    (tmp_path / "hangs.py").write_text("import time\ntime.sleep(3600)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(fork_server, "PRELOAD", ())
    monkeypatch.setattr(run, "imports_of", lambda plan: ["hangs"])
    monkeypatch.setattr(run_step, "imports_of", lambda plan: ["hangs"])
    monkeypatch.setattr(fork_server_pool, "_servers", {})
    yield "hangs"
    fork_server_pool._close_servers()


@pytest.fixture
def plan(registry):
    """The plan of an inference run that may take three seconds."""
    spec = compose(RunSpec(stages=("infer",), device="cpu"), registry).spec
    return compose(evolve(spec, isolation="forkserver", timeout=3.0), registry)


def test_waiting_for_the_imports_ends_at_the_deadline_and_ends_the_server(hanging):
    begin = time.monotonic()
    server = fork_server_pool.fork_server([hanging])
    with pytest.raises(ImportTimeout, match=f"^{hanging}$"):
        fork_server_pool.prepare([hanging], begin + 2.0)
    assert 2.0 <= time.monotonic() - begin < 30.0
    assert not server.alive()
    assert fork_server_pool.fork_server([hanging]) is not server


def test_a_run_whose_imports_hang_fails_with_the_name_of_the_module(hanging, plan, registry):
    result = run.run(plan, registry)
    assert result.status == "failed"
    assert result.reason == "timed out after 3 s (--timeout) while hangs was imported"
    assert result.stages == {}


def test_a_step_that_needs_a_server_of_its_own_keeps_the_deadline_too(hanging, plan):
    order = WorkerOrder(spec=plan.spec, step="infer")
    outcome = run_step.run_step(plan, order, (), {}, deadline=time.monotonic() + 2.0)
    assert outcome.reason == "infer timed out after 3 s (--timeout) while hangs was imported"
    assert outcome.record is None
