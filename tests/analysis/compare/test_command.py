"""`eflm compare` and `eflm bench --repeat`: all kinds of sides, verdicts with their basis, and refused requests."""

from __future__ import annotations

import json

import pytest
from jsonschema import Draft202012Validator

from eflm.results.store import save
from eflm_schemas.jsonschema import comparison_schema, repeats_schema, sweep_schema
from support.results import result, timed

KNOWN = (
    "--model=amounts",
    "--modality=known",
    "--device=cpu",
    "--stage=pretrain",
    "--set=pretrain.steps=4",
    "--set=pretrain.warmup_steps=1",
)


@pytest.fixture
def known(installed, cli):
    """Run the command line with the known-amounts modality."""
    with installed():
        yield cli


def saved_runs(tmp_path):
    """The result documents in the folder, by time."""
    return [json.loads(path.read_text()) for path in sorted((tmp_path / "results").glob("*.json"))]


def test_technique_sets_run_interleaved_and_the_slower_one_has_a_reason(known, tmp_path):
    done = known(
        "compare",
        "known.seconds=0.02,known.matrix=100",
        "known.seconds=0.06,known.matrix=700",
        *KNOWN,
        "--repeat=2",
        "--json",
    )
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    Draft202012Validator(comparison_schema()).validate(document)
    (latency,) = document["stages"]["pretrain"]["AL"]
    assert latency["verdict"] == "worse"
    assert latency["ratio"] == pytest.approx(latency["value"] / latency["baseline"], rel=0.1)
    assert latency["ratio"] > 2
    assert latency["interval"][0] > 1
    assert latency["basis"] == "between runs: 2 and 2"
    assert document["stages"]["pretrain"]["memory_weights"][0]["verdict"] == "tie"
    assert any("times the operations" in reason for reason in document["reasons"]["pretrain"])
    fast, slow = (side["label"] for side in document["sides"])
    (sentence,) = document["answer"]
    assert sentence.startswith(f"{fast} pretrains ")
    assert f"× faster than {slow}" in sentence
    assert [caveat.partition(":")[0] for caveat in document["caveats"]] == [
        "different modality/known.seconds",
        "different modality/known.matrix",
    ]
    # The order is A B B A. Each run has a file of its own, so they can be compared again.
    seconds = [float(run["spec"]["settings"]["known.seconds"]) for run in saved_runs(tmp_path)]
    assert seconds == [0.02, 0.06, 0.06, 0.02]

    again = known("compare", *(side["keys"][0][:8] for side in document["sides"]), "--json")
    assert json.loads(again.stdout)["stages"] == document["stages"]


@pytest.mark.slow
def test_three_technique_sets_run_forwards_and_backwards(known, tmp_path):
    sets = [f"known.seconds={seconds}" for seconds in (0.01, 0.02, 0.2)]
    done = known("compare", *sets, *KNOWN, "--repeat=2", "--json")
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    Draft202012Validator(comparison_schema()).validate(document)
    assert [side["name"] for side in document["sides"]] == sets
    middle, last = document["stages"]["pretrain"]["AL"]
    assert middle["ratio"] < last["ratio"]
    assert last["verdict"] == "worse"
    seconds = [float(run["spec"]["settings"]["known.seconds"]) for run in saved_runs(tmp_path)]
    assert seconds == [0.01, 0.02, 0.2, 0.2, 0.02, 0.01]


def test_runs_of_one_question_tie(known, tmp_path):
    for _ in "ab":
        assert known("bench", *KNOWN, "--set=known.seconds=0.02").exit_code == 0
    files = sorted((tmp_path / "results").glob("*.json"))
    done = known("compare", *map(str, files))
    assert done.exit_code == 0, done.stderr
    (row,) = [line.split() for line in done.stdout.splitlines() if line.startswith("AL ")]
    assert "tie" in row
    assert "assumed between them" in done.stdout
    assert "slower" not in done.stdout


def test_a_document_of_repeated_runs_can_be_a_side(known, tmp_path):
    done = known("bench", *KNOWN, "--set=known.seconds=0.02", "--repeat=3", "--json")
    assert done.exit_code == 0, done.stderr
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
    assert known("bench", *KNOWN, "--set=known.seconds=0.01", "--results=other").exit_code == 0
    (other,) = (tmp_path / "other").glob("*.json")
    compared = known("compare", "three.json", str(other), "--json")
    keys = json.loads(compared.stdout)["sides"][0]["keys"]
    assert keys == [run["key"] for run in document["runs"]]


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (("attention=nsa", "nowhere.json"), ["'attention=nsa'", "'nowhere.json'"]),
        (("nowhere.json", "baseline"), ["'nowhere.json'", "'baseline'"]),
        (("nowhere.json", "elsewhere.json"), ["'nowhere.json'", "not a file"]),
        (("abcdef01", "abcdef02"), ["results", "abcdef01"]),
        (("atention=nsa", "baseline"), ["did you mean attention?"]),
        (("attention=", "baseline"), ["'attention='", "TECHNIQUE=NAME"]),
        (("attention=nsb", "baseline"), ["did you mean nsa?"]),
        (("baseline",), ["two or more"]),
        (("baseline", "attention=gqa", "baseline"), ["'baseline'", "twice"]),
        (("attention=gqa,quant=int4", "quant=int4,attention=gqa"), ["'quant=int4,attention=gqa'", "same"]),
        (("attention=gqa,attention=nsa", "baseline"), ["attention", "twice"]),
        (("nsa.window=1,nsa.window=2", "baseline"), ["nsa.window", "twice"]),
        (("baseline", "attention=gqa", "--seed=1", "--seed=2"), ["--seed", "2 times"]),
        (("baseline", "attention=gqa", "--repeat=1", "--repeat=1"), ["--repeat", "2 times"]),
    ],
)
def test_requests_that_cannot_be_compared_are_refused(cli, arguments, facts):
    done = cli("compare", *arguments)
    assert done.exit_code == 2
    assert all(fact in done.stderr for fact in facts), done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_cannot_be_on_two_sides(cli, tmp_path):
    path = save(tmp_path / "results", result("ab" * 32))
    done = cli("compare", str(path), "abababab")
    assert done.exit_code == 2
    assert "abababab" in done.stderr


def test_a_failed_run_cannot_be_compared(cli, tmp_path):
    failed = save(tmp_path, result("ab" * 32, status="failed", reason="out of memory"))
    other = save(tmp_path, result("cd" * 32))
    done = cli("compare", str(other), str(failed))
    assert done.exit_code == 2
    assert "out of memory" in done.stderr


def test_the_answer_and_all_numbers_fit_80_columns(cli, tmp_path):
    """Wide tables become one line per side. No number is cut."""
    paths = []
    for n, quant in enumerate(("fp32", "int4", "int8")):
        metrics = {
            "AL": timed(1.0 + n),
            "decode_tokens_per_second": timed(1234.5 / (1 + n), "tokens/s"),
            "memory_weights": timed(0.32 / (1 + n), "GB"),
            "tokens_per_second": timed(987.6 / (1 + n), "tokens/s"),
        }
        paths.append(
            save(tmp_path, result(f"{n}a" * 32, techniques={"quant": quant}, stages={"infer": metrics}))
        )
    narrow = cli("compare", *map(str, paths), "--details", env={"COLUMNS": "80"})
    assert narrow.exit_code == 0, narrow.stderr
    assert narrow.stdout.startswith(
        "fp32 decodes 2.0 × faster than int4; int4's weights are 2.0 × smaller\n"
        "fp32 decodes 3.0 × faster than int8; int8's weights are 3.0 × smaller\n"
    )
    assert all(len(line) <= 80 for line in narrow.stdout.splitlines())
    for number in ("1.00", "2.00", "3.00", "1,234", "617", "412", "988", "494", "329", "× 0.500", "× 0.333"):
        assert number in narrow.stdout
    assert "…" not in narrow.stdout
    short = cli("compare", *map(str, paths), env={"COLUMNS": "80"})
    assert "1 more metric:" in short.stdout
    assert "494" not in short.stdout


@pytest.mark.slow
def test_a_sweep_runs_each_value_and_shows_them_in_columns(known, tmp_path):
    done = known("bench", *KNOWN, "--set=known.seconds=0.01,0.03", "--json")
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    Draft202012Validator(sweep_schema()).validate(document)
    assert document["over"] == ["known.seconds"]
    assert [float(point["settings"]["known.seconds"]) for point in document["points"]] == [0.01, 0.03]
    first, second = (point["stages"]["pretrain"]["metrics"]["AL"]["value"] for point in document["points"])
    assert 0.01 <= first < 0.03 <= second
    assert len(saved_runs(tmp_path)) == 2

    table = known("bench", *KNOWN, "--set=known.seconds=0.01,0.03").stdout
    assert "seconds 0.01" in table
    assert "seconds 0.03" in table


def test_a_mistake_in_any_point_of_a_sweep_is_found_before_the_first_run(known, tmp_path):
    done = known("bench", *KNOWN, "--set=known.seconds=0.01,-1")
    assert done.exit_code == 2
    assert "known.seconds" in done.stderr
    assert not (tmp_path / "results").exists()
