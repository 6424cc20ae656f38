"""The page: it shows the documents' figures, escapes hostile text, and contains its pictures."""

from __future__ import annotations

import base64
import io
import math
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from eflm.formatting.figures import figure, interval
from eflm.registry.discovery import load_plugins
from eflm.results.aggregation import repeats, sweep
from eflm.results.store import save
from eflm_analysis.compare.comparison import compare
from eflm_analysis.compare.texts import written
from eflm_analysis.report.gather import everything
from eflm_analysis.report.page import _own, page
from eflm_schemas import Flag, Metric
from eflm_schemas.convert import to_json
from support.pages import Element, read, rows
from support.results import result, save_with_artifacts, timed
from support.titles import title

CARDS = load_plugins().cards("metric")
BUSY = Flag(name="busy_cores", detail="others took 1.5 of 2 cores")


def shown(folder: Path) -> Element:
    text = page(everything(folder), CARDS, folder=folder, version="1", now=datetime(2026, 1, 2, tzinfo=UTC))
    return read(text)


def picture(kind: str = "PNG", pages: int = 1) -> bytes:
    file = io.BytesIO()
    images = [Image.new("RGB", (6, 4), (255, 50 * n, 0)) for n in range(pages)]
    images[0].save(
        file, format=kind, **({"save_all": True, "append_images": images[1:]} if pages > 1 else {})
    )
    return file.getvalue()


FIGURES = {
    "AL": timed(0.0123, percentiles={"p50": 0.012, "p99": 0.02}, note="per request"),
    "PPL": Metric(value=312.25, unit="perplexity per token", provenance="evaluated", n=4096, sd=1.5),
    "AEC": Metric.unavailable("W", "no <energy> counter"),
    "memory_weights": Metric(value=0.25, unit="GB", provenance="counted"),
}


def test_every_figure_is_that_of_the_document(tmp_path):
    save(tmp_path, result(stages={"pretrain": FIGURES, "infer": {"AL": timed(2.0)}}))
    article = shown(tmp_path).one("article")
    first, second = article.all("table", class_="figures")
    assert first.one("caption").text == "pretrain 3.0 s with set-up"
    found = rows(first)
    assert list(found) == [title(name) for name in FIGURES]
    for name, metric in FIGURES.items():
        cells = found[title(name)]
        assert (cells[0].text, cells[1].text) == figure(metric)
        assert cells[2].text == interval(metric)
        assert cells[3].text == metric.provenance
        assert cells[4].text == ("" if metric.n is None else f"{metric.n:,}")
        raw = [float(data.attributes["value"]) for data in cells[0].all("data")]
        assert raw == ([] if metric.value is None else [metric.value])
    assert found[title("AEC")][5].text == "no <energy> counter"
    assert found[title("AL")][5].text == "per request p50 12.0, p99 20.0"
    assert rows(second)[title("AL")][0].text == "2.00 ± 0.02"


def test_a_reused_stage_says_when_it_was_measured(tmp_path):
    run = result(stages={"pretrain": {"AL": timed(1.0)}, "infer": {"AL": timed(2.0)}})
    earlier = evolve(run.stages["pretrain"], reused="2025-12-31T23:59:58.123456+00:00")
    save(tmp_path, evolve(run, stages={**run.stages, "pretrain": earlier}))
    captions = [table.one("caption").text for table in shown(tmp_path).one("article").all("table")]
    assert captions == ["pretrain reused, measured 2025-12-31 23:59 UTC", "infer 3.0 s with set-up"]


NUMBERS = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e15, max_value=1e15)
WORDS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=30)


@given(
    value=NUMBERS,
    half=st.none() | st.floats(0, 1e3),
    unit=st.sampled_from(["s", "GB", "", "J/token"]),
    note=WORDS,
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_figure_and_any_note_are_shown(tmp_path_factory, value, half, unit, note):
    folder = tmp_path_factory.mktemp("any")
    ci95 = None if half is None else (value - half, value + half)
    metric = Metric(value=value, unit=unit, provenance="clock", ci95=ci95, note=note)
    save(folder, result(stages={"infer": {"AL": metric}}))
    cells = rows(shown(folder).one("article").one("table"))[title("AL")]
    assert (cells[0].text, cells[1].text) == figure(metric)
    assert math.isclose(float(cells[0].one("data").attributes["value"]), value, rel_tol=0, abs_tol=0)
    assert cells[5].text == " ".join(note.split())


HOSTILE = "<script>alert('&quot;\"')</script>"


def test_hostile_names_are_escaped(tmp_path):
    run = result(
        model=HOSTILE,
        techniques={"attention": HOSTILE},
        stages={HOSTILE: {HOSTILE: timed(1.0, note=HOSTILE)}},
        artifacts={HOSTILE: ("x.png",)},
        flags=(Flag(name=HOSTILE, detail=HOSTILE, stage=HOSTILE),),
        facts={HOSTILE: HOSTILE, "artifacts": {"x.png": '" onerror="alert(1)'}},
    )
    for n, kind in enumerate("ab"):
        path = save(tmp_path, evolve(run, key=kind * 16, started=f"2026-01-0{n + 1}T00:00:00"))
    (tmp_path / "x.png").write_bytes(picture())
    (tmp_path / f"{HOSTILE.replace('/', '')}.txt").write_text("")
    assert path.is_file()
    root = shown(tmp_path)
    assert not root.all("script")
    assert HOSTILE in root.one("title").text
    (look, *_) = root.all("img")
    assert set(look.attributes) == {"src", "alt"}
    assert 'onerror="alert(1)' in look.attributes["alt"]
    events = [name for element in root._below() for name in element.attributes if name.startswith("on")]
    assert events == []


def test_the_page_loads_nothing(tmp_path):
    run = save_with_artifacts(tmp_path, result(), {"infer": {"samples.png": picture()}})
    save(tmp_path, run)
    root = shown(tmp_path)
    for element in root._below():
        for name in ("src", "href", "data", "action"):
            link = element.attributes.get(name, "#")
            assert link.startswith(("#", "data:")), f"<{element.tag} {name}={link}>"
    assert "url(" not in root.one("style").text
    assert "@import" not in root.one("style").text
    policy = root.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes["content"]
    assert policy.startswith("default-src 'none'")


def decoded(image: Element) -> Image.Image:
    kind, _, content = image.attributes["src"].partition(";base64,")
    found = Image.open(io.BytesIO(base64.b64decode(content, validate=True)))
    assert kind == f"data:image/{found.format.lower()}"
    return found


def test_the_page_contains_pictures_and_clips_with_captions(tmp_path):
    files = {"samples.png": picture(), "samples.gif": picture("GIF", pages=3), "notes.bin": b"plain"}
    run = result(facts={"artifacts": {"samples.png": "digits, a row each"}})
    save(tmp_path, save_with_artifacts(tmp_path, run, {"infer": files}))
    article = shown(tmp_path).one("article")
    still, clip = article.all("img")
    assert (decoded(still).size, decoded(clip).n_frames) == ((6, 4), 3)
    assert still.attributes["alt"] == "Output of nano, baseline, after infer: digits, a row each"
    captions = [caption.text for caption in article.all("figcaption")]
    assert captions == [
        "After infer: digits, a row each",
        "After infer: samples.gif",
        "After infer: notes.bin",
    ]
    (other,) = article.all("a", download=run_file(tmp_path, "notes.bin"))
    assert base64.b64decode(other.attributes["href"].partition("base64,")[2]) == b"plain"


def run_file(folder: Path, ending: str) -> str:
    return next(path.name for path in folder.iterdir() if path.name.endswith(ending))


def test_pictures_that_are_missing_or_in_another_folder_are_not_shown(tmp_path):
    folder = tmp_path / "results"
    (tmp_path / "secret.png").write_bytes(picture())
    save(folder, result(artifacts={"infer": ("gone.png", "../secret.png")}))
    article = shown(folder).one("article")
    assert not article.all("img")
    gone, secret = (found.text for found in article.all("p", class_="missing"))
    assert gone == f"gone.png is not shown: the file is not in {folder}."
    assert secret.startswith("../secret.png is not shown: ")


def test_flags_are_shown_with_their_figures(tmp_path):
    for key in "ab":
        save(tmp_path, result(key * 16, started=f"2026-01-0{'ab'.index(key) + 1}T00:00:00", flags=(BUSY,)))
    a, b = (result(key * 16, flags=(BUSY,)) for key in "cd")
    (tmp_path / "c.json").write_text(to_json(compare([[a], [b]], CARDS)))
    (tmp_path / "r.json").write_text(to_json(repeats([a, a])))
    (tmp_path / "s.json").write_text(
        to_json(sweep(["x.y"], [{"x.y": 1}], [[result("e" * 16, settings={"x.y": 1}, flags=(BUSY,))]]))
    )
    root = shown(tmp_path)
    for part in (*root.all("section"), *root.all("article")):
        if part.all("table") and not part.all("h2", id="metrics"):
            assert "busy_cores" in part.text, part.text[:100]
    columns = root.one("table", class_="standings").one("thead").all("th")[1:]
    assert len(columns) == 4
    assert all("contaminated: busy_cores" in column.text for column in columns)
    assert all("contamination" in flags.text for flags in root.all("div", class_="flags"))


def test_a_failed_run_is_shown_with_its_reason(tmp_path):
    save(tmp_path, result(stages={}, status="failed", reason="out of memory"))
    root = shown(tmp_path)
    assert root.one("p", class_="failed").text == "The run failed: out of memory"
    assert "failed" in root.one("table").text
    assert "No stage finished." in root.one("article").text


def test_documents_of_several_runs_have_their_own_tables(tmp_path):
    runs = [result(started=f"2026-01-0{n}T00:00:00", stages={"infer": {"AL": timed(n)}}) for n in (1, 2, 3)]
    together = repeats(runs)
    (tmp_path / "three.json").write_text(to_json(together))
    points = [[result(f"{n}" * 16, settings={"infer.batch_size": n})] for n in (1, 8)]
    over = sweep(["infer.batch_size"], [{"infer.batch_size": n} for n in (1, 8)], points)
    (tmp_path / "sweep.json").write_text(to_json(over))
    comparison = compare([runs[:1], runs[1:2], runs[2:]], CARDS, names=("one", "two", "three"))
    (tmp_path / "ab.json").write_text(to_json(comparison))
    root = shown(tmp_path)

    pooled = next(part for part in root.all("section") if "3 runs, averaged three.json" in part.text)
    assert rows(pooled.one("table"))[title("AL")][0].text == figure(together.stages["infer"].metrics["AL"])[0]
    assert len(root.all("article")) == 5

    table = root.one("table", class_="sweep")
    assert [head.text for head in table.one("thead").all("th")] == ["metric", "batch_size 1", "batch_size 8"]
    assert [cell.text for cell in rows(table)[title("AL")]] == [
        " ".join(figure(point.stages["infer"].metrics["AL"])) for point in over.points
    ]

    differences = comparison.stages["infer"]["AL"]
    row = written(differences)
    baseline, *cells = (cell.text for cell in rows(root.one("table", class_="differences"))[title("AL")])
    assert baseline == f"{row.baseline} {row.unit}"
    assert len(cells) == 2
    for cell, found, text in zip(cells, differences, row.cells, strict=True):
        assert cell == f"{text.value} {row.unit} {text.ratio} ({text.interval}) {found.verdict} [1]"
    page_text = root.one("main").text
    assert all(sentence in page_text for sentence in comparison.answer)
    assert differences[0].basis in page_text


def test_tables_of_several_runs_mark_estimated_values_and_give_the_provenance(tmp_path):
    measured, estimated = (
        {"AEC": Metric(value=value, unit="W", provenance=provenance, n=9), "AL": timed(1.0)}
        for value, provenance in ((50.0, "counter"), (20.0, "estimated"))
    )
    runs = [
        result(f"{n}" * 16, settings={"infer.batch_size": n}, stages={"infer": metrics})
        for n, metrics in ((1, measured), (2, estimated))
    ]
    for run in runs:
        save(tmp_path, run)
    over = sweep(["infer.batch_size"], [run.spec.settings for run in runs], [[run] for run in runs])
    (tmp_path / "sweep.json").write_text(to_json(over))
    root = shown(tmp_path)
    for kind in ("standings", "sweep"):
        found = rows(root.one("table", class_=kind))
        first, second = found[title("AEC")]
        assert first.text == "50.0 W"
        assert second.text == "20.0 W estimated"
        origins = [cell.one("data").attributes["title"] for cell in (first, second, *found[title("AL")])]
        assert origins == ["counter", "estimated", "clock", "clock"]


def test_a_run_in_a_result_and_in_a_document_of_several_is_shown_once(tmp_path):
    run = save_with_artifacts(tmp_path, result(), {"infer": {"samples.png": picture()}})
    path = save(tmp_path, run)
    (tmp_path / "0.json").write_text(to_json(repeats([run])))
    root = shown(tmp_path)
    assert root.one("article").one("summary").text == f"Origin of run 1: {path.name}"
    assert root.one("article").all("img")


def test_the_origin_of_a_run_is_complete(tmp_path):
    save(tmp_path, result(settings={"nsa.window": 64}))
    details = shown(tmp_path).one("details")
    words = dict(zip((d.text for d in details.all("dt")), (d.text for d in details.all("dd")), strict=True))
    assert words["key"] == "0123456789abcdef"
    assert words["data"] == "a text, abc123"
    assert words["seed"] == "0"
    assert words["software"] == "Python 3.11.7, torch 2.13.0"
    assert words["commit of eflm"] == "c0ffee"
    assert words["plugins"] == "attention/nsa (eflm 0.1.0)"
    assert '"nsa.window": 64' in details.all("pre")[0].text


def test_tables_have_row_and_column_headers_and_links_have_targets(tmp_path):
    for key in "ab":
        save(tmp_path, result(key * 16, started=f"2026-01-0{'ab'.index(key) + 1}T00:00:00"))
    root = shown(tmp_path)
    tables = root.all("table")
    assert len(tables) == 5
    for table in tables:
        assert all(head.attributes.get("scope") == "col" for head in table.one("thead").all("th"))
        for row in table.one("tbody").all("tr"):
            assert len(row.all("th", scope="row")) == 1
    identities = [element.attributes["id"] for element in root._below() if "id" in element.attributes]
    assert len(identities) == len(set(identities))
    links = [link.attributes["href"] for link in root.all("a")]
    assert links
    assert all(link[1:] in identities for link in links if link.startswith("#"))
    assert root.one("html").attributes["lang"] == "en"


@pytest.mark.parametrize("metric", ["AL", "AEC"])
def test_metrics_have_the_definitions_of_their_cards(tmp_path, metric):
    save(tmp_path, result(stages={"infer": FIGURES}))
    infos = {info.name: info for card in CARDS for info in card.metrics}
    row = shown(tmp_path).one("tr", id=f"metric-{metric}")
    info = infos[metric]
    assert [cell.text for cell in row.all("td")] == [info.unit, info.better, info.definition]


def test_metrics_are_shown_with_their_labels(tmp_path):
    label = "AL · latency per step"
    (card, *others) = [card for card in CARDS if any(info.name == "AL" for info in card.metrics)]
    labelled = tuple(evolve(info, label=label) if info.name == "AL" else info for info in card.metrics)
    for key in "ab":
        save(tmp_path, result(key * 16, started=f"2026-01-0{'ab'.index(key) + 1}T00:00:00"))
    (tmp_path / "c.json").write_text(to_json(compare([[result("c" * 16)], [result("d" * 16)]], CARDS)))
    cards = [evolve(card, metrics=labelled), *others]
    text = page(
        everything(tmp_path), cards, folder=tmp_path, version="1", now=datetime(2026, 1, 2, tzinfo=UTC)
    )
    root = read(text)
    for table in ("figures", "standings", "differences"):
        assert all(label in rows(found) for found in root.all("table", class_=table))
    definition = root.one("tr", id="metric-AL").one("th", scope="row").text
    assert definition == f"{label} AL"


def palettes() -> list[dict[str, str]]:
    """Return the colours by name, for light and dark mode."""
    light, dark = re.findall(r":root {(.*?)}", _own("page.css"), re.DOTALL)[:2]
    return [dict(re.findall(r"--([\w-]+): (#\w+);", block)) for block in (light, dark)]


def luminance(colour: str) -> float:
    """Return the relative luminance (WCAG 2.2)."""
    digits = "".join(2 * d for d in colour[1:]) if len(colour) == 4 else colour[1:]
    parts = [int(digits[n : n + 2], 16) / 255 for n in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("palette", palettes(), ids=["light", "dark"])
def test_text_has_enough_contrast(palette):
    on = [("ink", "paper"), ("soft", "paper"), ("soft", "panel"), ("soft", "good-back"), ("ink", "good-back")]
    on += [("link", "paper"), ("link", "panel"), ("good", "paper"), ("good", "good-back"), ("bad", "paper")]
    on += [("bad", "panel"), ("warn", "paper"), ("warn", "warn-back"), ("ink", "warn-back")]
    for text, ground in on:
        bright, dim = sorted((luminance(palette[text]), luminance(palette[ground])), reverse=True)
        assert (bright + 0.05) / (dim + 0.05) >= 4.5, f"{text} on {ground}"


def test_the_wheel_contains_the_template_and_the_style():
    from hatchling.builders.wheel import WheelBuilder

    packed = {
        file.distribution_path
        for file in WheelBuilder(str(Path(__file__).parents[3])).recurse_included_files()
    }
    assert {
        "eflm_analysis/report/page.py",
        "eflm_analysis/report/page.html.jinja",
        "eflm_analysis/report/page.css",
    } <= packed
