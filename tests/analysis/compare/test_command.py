"""`eflm compare` and `eflm bench --repeat`: sides of every kind, verdicts with their basis, and refusals in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from eflm_schemas.jsonschema import comparison_schema, repeats_schema, sweep_schema

PIECE = Path(__file__).parents[2] / "support" / "known_amounts.py"
KNOWN = (
    "--model=amounts",
    "--modality=known",
    "--device=cpu",
    "--stage=pretrain",
    "--set=pretrain.steps=4",
    "--set=pretrain.warmup_steps=1",
)


@pytest.fixture
def known(site, eflm):
    site.install("known-amounts", PIECE.read_text())
    return eflm


def test_technique_sets_run_in_turn_and_a_slower_one_is_worse_and_told_why(known, tmp_path):
    done = known(
        "compare",
        "known.seconds=0.06,known.matrix=700",
        "known.seconds=0.02,known.matrix=100",
        *KNOWN,
        "--repeat=2",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    Draft202012Validator(comparison_schema()).validate(document)
    latency = document["stages"]["pretrain"]["AL"]
    assert latency["verdict"] == "worse"
    assert latency["ratio"] > 2
    assert latency["interval"][0] > 1
    assert latency["basis"] == "between runs: 2 and 2"
    assert document["stages"]["pretrain"]["memory_weights"]["verdict"] == "tie"
    assert any("times the operations" in reason for reason in document["reasons"]["pretrain"])
    assert document["caveats"] == [
        "the sides have different modality/known.seconds",
        "the sides have different modality/known.matrix",
    ]
    # A B B A, each in a file of its own, so that they can be compared again.
    saved = [json.loads(path.read_text()) for path in sorted((tmp_path / "results").glob("*.json"))]
    assert [float(run["spec"]["settings"]["known.seconds"]) for run in saved] == [0.06, 0.02, 0.02, 0.06]

    again = known("compare", document["a"]["keys"][0][:8], document["b"]["keys"][0][:8], "--json")
    assert json.loads(again.stdout)["stages"] == document["stages"]


def test_files_of_one_question_tie(known, tmp_path):
    for _ in "ab":
        assert known("bench", *KNOWN, "--set=known.seconds=0.02").returncode == 0
    a, b = sorted((tmp_path / "results").glob("*.json"))
    done = known("compare", str(a), str(b))
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("AL ")]
    assert "tie" in rows[0]
    assert "assumed between them" in done.stdout
    assert "slower" not in done.stdout


@pytest.mark.slow
def test_repeats_are_one_document_that_stands_on_a_side(known, tmp_path):
    done = known("bench", *KNOWN, "--set=known.seconds=0.02", "--repeat=3", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    Draft202012Validator(repeats_schema()).validate(document)
    runs = [run["stages"]["pretrain"]["metrics"]["AL"]["value"] for run in document["runs"]]
    pooled = document["stages"]["pretrain"]["metrics"]["AL"]
    assert pooled["n"] == 3
    assert pooled["value"] == pytest.approx(sum(runs) / 3)
    assert pooled["ci95"][0] < min(runs) <= max(runs) < pooled["ci95"][1] or pooled["sd"] > 0
    assert len({run["key"] for run in document["runs"]}) == 1
    assert done.stderr.count("saved: ") == 3
    (tmp_path / "three.json").write_text(done.stdout)
    compared = known("compare", "three.json", "three.json", "--json")
    assert json.loads(compared.stdout)["a"]["keys"] == [run["key"] for run in document["runs"]]


@pytest.mark.parametrize(
    ("sides", "words"),
    [
        (("attention=nsa", "nowhere.json"), "one is to be run and the other has been"),
        (("nowhere.json", "baseline"), "one is to be run"),
        (("nowhere.json", "elsewhere.json"), "is no file, no key of a result and no technique set"),
        (("abcdef01", "abcdef02"), "no result in results has a key that begins with abcdef01"),
        (("atention=nsa", "baseline"), "did you mean attention?"),
        (("attention=", "baseline"), "is not written TECHNIQUE=NAME"),
        (("attention=nsb", "baseline"), "did you mean nsa?"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_words(eflm, sides, words):
    done = eflm("compare", *sides)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_failed_run_cannot_be_compared(known, tmp_path):
    assert known("bench", *KNOWN, "--set=known.trouble=bug").returncode == 1
    (saved,) = (tmp_path / "results").glob("*.json")
    done = known("compare", str(saved), str(saved))
    assert done.returncode == 2
    assert "cannot be compared: the run failed" in done.stderr


@pytest.mark.slow
def test_other_differences_than_techniques_are_said(known, tmp_path):
    for seed in "01":
        assert known("bench", *KNOWN, f"--seed={seed}").returncode == 0
    a, b = sorted((tmp_path / "results").glob("*.json"))
    assert "the sides have different seeds: 0 and 1" in known("compare", str(a), str(b)).stdout


@pytest.mark.slow
def test_a_sweep_is_a_run_for_each_value_side_by_side(known, tmp_path):
    done = known("bench", *KNOWN, "--set=known.seconds=0.01,0.03", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    Draft202012Validator(sweep_schema()).validate(document)
    assert document["over"] == ["known.seconds"]
    assert [float(point["settings"]["known.seconds"]) for point in document["points"]] == [0.01, 0.03]
    first, second = (point["stages"]["pretrain"]["metrics"]["AL"]["value"] for point in document["points"])
    assert 0.01 <= first < 0.03 <= second
    assert len(list((tmp_path / "results").glob("*.json"))) == 2

    table = known("bench", *KNOWN, "--set=known.seconds=0.01,0.03").stdout
    assert "seconds 0.01" in table
    assert "seconds 0.03" in table


def test_a_mistake_in_any_point_of_a_sweep_comes_before_the_first_run(known, tmp_path):
    done = known("bench", *KNOWN, "--set=known.seconds=0.01,-1")
    assert done.returncode == 2
    assert "known.seconds" in done.stderr
    assert not (tmp_path / "results").exists()
