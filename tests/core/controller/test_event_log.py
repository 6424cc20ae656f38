"""The journal takes down what a worker tells, and refuses what makes no sense."""

from __future__ import annotations

import json
import os

import pytest

from eflm.controller.event_log import Journal
from eflm.protocol.events import EventWriter, decode
from eflm.protocol.record import Compression, ModelFacts, Window
from eflm_schemas import Flag, Metric

PPL = Metric(value=8.0, unit="perplexity per token", provenance="evaluated", ci95=(7.5, 8.5))
MODEL = ModelFacts(parameters=3, trainable_parameters=2, bytes=12)


@pytest.fixture
def heard():
    return []


@pytest.fixture
def journal(heard):
    return Journal(on_device=lambda: heard.append("device"), on_progress=lambda *step: heard.append(step))


@pytest.fixture
def tell(journal):
    """Send events through a real pipe into the journal."""
    read, write = os.pipe()
    writer = EventWriter(write)

    def send(event: str, **fields) -> None:
        writer.send(event, **fields)
        for line in os.read(read, 1 << 16).splitlines():
            journal.note(decode(line))

    yield send
    os.close(read)
    os.close(write)


def test_a_stage_is_taken_down_whole(tell, journal):
    window = Window(name="step", begin=5, end=9, tokens=4, flops=1.5)
    tell("stage_begin", stage="infer", time=1)
    assert journal.stage == "infer"
    tell("model", model=MODEL, dtype="bfloat16", peak_flops=1e12, peak_source="table")
    tell("window", window=window)
    tell("stage_facts", facts={"loss": 1.0})
    tell("compression", compression=Compression(original_bytes=8, bytes=2, quality={"PPL": PPL}))
    tell("quality", quality={"PPL": PPL})
    tell("stage_end", stage="infer", time=20)

    stage = journal.stages["infer"]
    assert (stage.begin, stage.end, stage.windows, stage.model) == (1, 20, [window], MODEL)
    assert (stage.dtype, stage.peak_flops, stage.peak_source) == ("bfloat16", 1e12, "table")
    assert stage.quality == {"PPL": PPL}
    assert stage.compression.quality == {"PPL": PPL}
    assert stage.facts == {"loss": 1.0}
    assert journal.stage is None


def test_what_concerns_the_run_is_kept_apart(tell, journal, heard):
    tell("device", device="cpu", name="CPU")
    tell("progress", stage="infer", done=1, total=2)
    tell("facts", facts={"data": "text"})
    tell("flag", flag=Flag(name="short", detail="few tokens"))
    tell("failed", kind="ModelError", reason="it cannot be", time=1)

    assert heard == ["device", ("infer", 1, 2)]
    assert journal.device["name"] == "CPU"
    assert journal.facts == {"data": "text"}
    assert journal.flags == [Flag(name="short", detail="few tokens")]
    assert (journal.failure.kind, journal.failure.reason) == ("ModelError", "it cannot be")
    assert not journal.done


def test_facts_that_json_does_not_know_are_told_as_text(tell, journal, tmp_path):
    tell("facts", facts={"folder": tmp_path})
    assert journal.facts == {"folder": str(tmp_path)}


@pytest.mark.parametrize(
    "event",
    [
        {"event": "weather"},
        {"event": "window", "window": {"name": "step", "begin": 1, "end": 2}},
        {"event": "quality", "quality": {}},
    ],
)
def test_what_makes_no_sense_is_refused(journal, event):
    with pytest.raises(ValueError, match=r"not an event that is known|outside of one"):
        journal.note(event)


@pytest.mark.parametrize("line", [b"", b'{"event": "wind', b"[1]", b'{"name": "step"}', b"\xff"])
def test_a_line_that_is_no_event_is_a_value_error(line):
    with pytest.raises(ValueError):
        decode(line)


def test_a_long_event_passes_a_pipe_that_holds_less():
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        EventWriter(write).send("facts", facts={"text": "x" * 300_000})
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert len(json.loads(pipe.read())["facts"]["text"]) == 300_000
    assert os.waitpid(child, 0)[1] == 0
