"""One worker process: its output, and what is left if it cannot be started."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
import pytest

from eflm.controller.worker_process import WorkerProcess

#: Prints a number for every line that it reads.
PRINTER = """
import sys
for number, line in enumerate(sys.stdin):
    print("line", number, flush=True)
"""


@pytest.fixture
def started(monkeypatch):
    """Start PRINTER in place of a worker, and return the started processes."""
    processes = []

    def spawn(self, standard_input, events, environment):
        log = self._log
        command = [sys.executable, "-c", PRINTER]
        process = subprocess.Popen(
            command, stdin=standard_input, stdout=log, pass_fds=(events,), start_new_session=True
        )
        processes.append(process)
        return process

    monkeypatch.setattr(WorkerProcess, "_spawn", spawn)
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def wait_for(worker, text):
    deadline = time.monotonic() + 20
    while text not in worker.log_tail():
        assert time.monotonic() < deadline, worker.log_tail()
        time.sleep(0.01)


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt()])
def test_nothing_is_left_if_the_order_cannot_be_sent(started, monkeypatch, error):
    def refuse(*_):
        raise error

    descriptors = psutil.Process().num_fds()
    monkeypatch.setattr(WorkerProcess, "_send", refuse)
    with pytest.raises(type(error)):
        WorkerProcess("{}")
    (process,) = started
    assert process.poll() is not None
    assert psutil.Process().num_fds() == descriptors


def test_reading_the_log_does_not_move_the_position_at_which_the_worker_writes(started, monkeypatch):
    monkeypatch.setattr("eflm.controller.worker_process.LOG_TAIL_BYTES", 8)
    with WorkerProcess("{}") as worker:
        wait_for(worker, "line 0")
        log = worker._log.fileno()
        os.lseek(log, 2, os.SEEK_SET)
        assert worker.log_tail() == "line 0"
        assert os.lseek(log, 0, os.SEEK_CUR) == 2
