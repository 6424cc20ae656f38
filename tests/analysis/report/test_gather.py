"""Documents of a report: every kind, by folder, file or key; other files are listed with a reason."""

from __future__ import annotations

import pytest

from eflm.errors import UsageError
from eflm.registry.discovery import load_plugins
from eflm.results.aggregation import repeats, sweep
from eflm.results.store import save
from eflm_analysis.compare.comparison import compare
from eflm_analysis.report.gather import asked_for, everything
from eflm_schemas import RunResult
from eflm_schemas.comparison import Comparison, Repeats, Sweep
from eflm_schemas.convert import to_json
from support.results import result

CARDS = load_plugins().cards("metric")


def test_a_folder_gives_every_kind_of_document(tmp_path):
    run = result(settings={"a.b": 1})
    save(tmp_path, run)
    for name, document in {
        "repeats": repeats([run, run]),
        "sweep": sweep(["a.b"], [{"a.b": 1}, {"a.b": 2}], [[run], [run]]),
        "comparison": compare([[run], [run]], CARDS),
    }.items():
        (tmp_path / f"{name}.json").write_text(to_json(document))
    gathered = everything(tmp_path)
    assert {type(found.document) for found in gathered.found} == {RunResult, Repeats, Sweep, Comparison}
    assert sorted(len(found.runs) for found in gathered.found) == [0, 1, 2, 2]
    assert gathered.left_out == ()


def test_files_that_are_not_documents_are_listed(tmp_path):
    save(tmp_path, result(artifacts={"infer": ("samples.png",)}))
    (tmp_path / "samples.png").write_bytes(b"")
    (tmp_path / "broken.json").write_text('{"schema": "eflm.result/2", "key"')
    (tmp_path / "damaged.json").write_text('{"schema": "eflm.result/2"}')
    (tmp_path / "other.json").write_text('{"schema": ["eflm.result/2"]}')
    (tmp_path / "empty.json").write_text(to_json(repeats([])))
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "report.html").write_text("")
    (tmp_path / ".unfinished-1").write_text("")
    (tmp_path / "folder").mkdir()
    gathered = everything(tmp_path, besides=tmp_path / "folder" / ".." / "report.html")
    assert len(gathered.found) == 1
    reasons = {file.name: file.reason for file in gathered.left_out}
    assert "it is not JSON" in reasons.pop("broken.json")
    assert "is damaged" in reasons.pop("damaged.json")
    assert "is not a document that this version of eflm can read" in reasons.pop("other.json")
    assert "no run" in reasons.pop("empty.json")
    assert list(reasons) == ["notes.txt"]


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"nowhere does not exist; eflm bench"):
        everything(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"no result; eflm bench .* --results DIR"):
        everything(tmp_path)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UsageError, match=r"no result; broken\.json: .* not JSON"):
        everything(tmp_path)


def test_a_document_found_by_file_and_by_key_is_read_once(tmp_path):
    first = save(tmp_path, result("a1" * 32))
    second = save(tmp_path, result("a1" * 32, started="2026-01-03T00:00:00"))
    save(tmp_path, result("b2" * 32))
    elsewhere = tmp_path / "elsewhere" / "three.json"
    elsewhere.parent.mkdir()
    elsewhere.write_text(to_json(repeats([result("c3" * 32)])))
    gathered = asked_for(["a1a1a1", str(first), str(elsewhere)], tmp_path)
    assert [found.path for found in gathered.found] == [first, second, elsewhere]


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("nowhere.json", "'nowhere.json'"),
        ("ffff", "ffff"),
        ("a1a1", "a1a1b1a1b1a1, a1a1c1a1c1a1"),
    ],
)
def test_a_word_that_matches_no_result_or_several_keys_is_refused(tmp_path, word, words):
    for kind in "bc":
        save(tmp_path, result("a1a1" + f"{kind}1a1" * 15))
    with pytest.raises(UsageError, match=words):
        asked_for([word], tmp_path)


def test_a_broken_file_that_was_named_is_listed(tmp_path):
    (tmp_path / "broken.json").write_text("{")
    saved = save(tmp_path, result())
    gathered = asked_for([str(tmp_path / "broken.json"), str(saved)], tmp_path)
    assert [found.path for found in gathered.found] == [saved]
    assert [file.name for file in gathered.left_out] == ["broken.json"]
    with pytest.raises(UsageError, match=r"broken\.json"):
        asked_for([str(tmp_path / "broken.json")], tmp_path)
