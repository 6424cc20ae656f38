"""`eflm report`: from a real run to one page, and refused requests."""

from __future__ import annotations

import base64
import json

import pytest

from eflm.results.store import save
from support.pages import read, rows
from support.results import result
from support.titles import title


def test_a_run_of_known_amounts_becomes_a_page(installed, cli, tmp_path):
    with installed():
        bench = cli(
            "bench", "--model=amounts", "--modality=known", "--device=cpu", "--stage=pretrain",
            "--results=my runs", "--set=pretrain.steps=4", "--set=pretrain.warmup_steps=1",
            "--set=known.seconds=0.02", "--set=known.artifact=notes.txt",
        )  # fmt: skip
    assert bench.exit_code == 0, bench.stderr
    assert bench.stdout.splitlines()[-1] == "all on one page: eflm report --results 'my runs'"

    done = cli("report", "--results=my runs")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "saved: report.html\n", "")
    (saved,) = (tmp_path / "my runs").glob("*.json")
    document = json.loads(saved.read_text())
    article = read((tmp_path / "report.html").read_text()).one("article")
    figures = rows(article.one("table"))
    metrics = document["stages"]["pretrain"]["metrics"]
    assert list(figures) == [title(name) for name in metrics]
    for name, metric in metrics.items():
        raw = [float(data.attributes["value"]) for data in figures[title(name)][0].all("data")]
        assert raw == ([] if metric["value"] is None else [metric["value"]]), name
        assert figures[title(name)][3].text == metric["provenance"]
    for flag in document["flags"]:
        assert flag["detail"] in article.text
    content = article.one("figure").one("a").attributes["href"].partition("base64,")[2]
    assert base64.b64decode(content) == b"after pretrain"


def test_the_page_shows_the_figures_of_the_terminal(cli, tmp_path):
    saved = save(tmp_path / "results", result())
    done = cli("report", str(saved), "--out", "pages/one.html")
    assert done.exit_code == 0, done.stderr
    page = read((tmp_path / "pages" / "one.html").read_text())
    assert [cell.text for cell in rows(page.one("article").one("table"))[title("AL")]][:2] == [
        "500 ± 5",
        "ms",
    ]


def test_broken_files_are_listed_and_the_page_itself_is_not(cli, tmp_path):
    save(tmp_path / "results", result())
    (tmp_path / "results" / "broken.json").write_text("{")
    for _ in range(2):
        done = cli("report", "--out", "results/report.html")
        assert done.exit_code == 0, done.stderr
        (line,) = done.stderr.splitlines()
        assert "broken.json" in line
    assert "broken.json" in read((tmp_path / "results" / "report.html").read_text()).one("main").text


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        ((), ["the folder results", "eflm bench"]),
        (("nowhere.json",), ["'nowhere.json'", "key"]),
        (("abcdef",), ["results", "abcdef"]),
        (("--results", "."), ["no result", "--results DIR"]),
    ],
)
def test_a_report_without_results_is_refused(cli, arguments, facts):
    done = cli("report", *arguments)
    assert done.exit_code == 2
    assert all(fact in done.stderr for fact in facts), done.stderr
    assert "Traceback" not in done.stderr


def test_a_page_that_cannot_be_written_is_an_error(cli, tmp_path):
    save(tmp_path / "results", result())
    (tmp_path / "file").write_text("")
    done = cli("report", "--out", "file/report.html")
    assert done.exit_code == 1
    assert "file/report.html" in done.stderr
    assert "--out FILE" in done.stderr
    assert "Traceback" not in done.stderr
