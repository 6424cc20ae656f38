"""The event log records what a worker sends, and refuses events that it does not know."""

from __future__ import annotations

import base64
import json
import os

import pytest

from eflm.controller.event_log import EventLog
from eflm.protocol.events import EventWriter, decode
from eflm.protocol.record import ModelFacts, Window
from eflm_schemas import Flag, Metric

PPL = Metric(value=8.0, unit="perplexity per token", provenance="evaluated", ci95=(7.5, 8.5))
MODEL = ModelFacts(parameters=3, trainable_parameters=2, bytes=12)


@pytest.fixture
def reported():
    return []


@pytest.fixture
def log(reported):
    return EventLog(
        on_device=lambda: reported.append("device"), on_progress=lambda *step: reported.append(step)
    )


@pytest.fixture
def send(log):
    """Send events through a real pipe into the log."""
    read, write = os.pipe()
    writer = EventWriter(write)

    def through_pipe(event: str, **fields) -> None:
        writer.send(event, **fields)
        for line in os.read(read, 1 << 16).splitlines():
            log.add(decode(line))

    yield through_pipe
    os.close(read)
    os.close(write)


def test_a_stage_is_recorded(send, log):
    window = Window(name="step", begin=5, end=9, tokens=4, flops=1.5)
    send("stage_begin", stage="infer", time=1)
    assert log.end is None
    send("model", model=MODEL, dtype="bfloat16", peak_flops=1e12, peak_source="table")
    send("window", window=window)
    send("stage_facts", facts={"loss": 1.0})
    send("quality", quality={"PPL": PPL})
    send("artifact", name="notes.txt", content=base64.b64encode(b"text").decode())
    send("stage_end", stage="infer", time=20)

    assert (log.begin, log.end, log.windows, log.model) == (1, 20, [window], MODEL)
    assert (log.dtype, log.peak_flops, log.peak_source) == ("bfloat16", 1e12, "table")
    assert log.quality == {"PPL": PPL}
    assert log.stage_facts == {"loss": 1.0}
    assert log.artifacts == {"notes.txt": b"text"}
    assert log.run_facts == {}


def test_facts_of_the_run_flags_and_failures_are_recorded(send, log, reported):
    send("device", device="cpu", name="CPU")
    send("progress", stage="infer", done=1, total=2)
    send("run_facts", facts={"data": "text"})
    send("flag", flag=Flag(name="short", detail="few tokens"))
    send("failed", kind="ModelError", reason="refused", time=1)

    assert reported == ["device", ("infer", 1, 2)]
    assert log.device["name"] == "CPU"
    assert log.run_facts == {"data": "text"}
    assert log.flags == [Flag(name="short", detail="few tokens")]
    assert (log.failure.kind, log.failure.reason, log.failure.time) == ("ModelError", "refused", 1)
    assert not log.done
    send("done")
    assert log.done


def test_facts_that_json_has_no_type_for_are_sent_as_text(send, log, tmp_path):
    send("run_facts", facts={"folder": tmp_path})
    assert log.run_facts == {"folder": str(tmp_path)}


@pytest.mark.parametrize(
    "event",
    [
        {"event": "weather"},
        {"event": "stage_end"},
        *(
            {"event": "artifact", "name": n, "content": ""}
            for n in ("../notes.txt", "/notes.txt", ".hidden", "")
        ),
    ],
)
def test_an_event_that_is_not_understood_is_refused(log, event):
    with pytest.raises(ValueError):
        log.add(event)
    assert log.artifacts == {}


@pytest.mark.parametrize("line", [b"", b'{"event": "wind', b"[1]", b'{"name": "step"}', b"\xff"])
def test_a_line_that_is_no_event_is_refused(line):
    with pytest.raises(ValueError):
        decode(line)


def test_an_event_may_be_larger_than_the_buffer_of_the_pipe():
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        EventWriter(write).send("run_facts", facts={"text": "x" * 300_000})
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert len(json.loads(pipe.read())["facts"]["text"]) == 300_000
    assert os.waitpid(child, 0)[1] == 0
