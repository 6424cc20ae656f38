"""The page in a real browser: pictures and text in light and dark mode, on a phone, on paper, and offline."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from datetime import UTC, datetime

import pytest
from attrs import evolve
from PIL import Image

from eflm.registry.discovery import load_plugins
from eflm.results.store import save
from eflm_analysis.compare.comparison import compare
from eflm_analysis.report.gather import everything
from eflm_analysis.report.page import page
from eflm_schemas import Metric
from eflm_schemas.convert import to_json
from support.results import result, save_with_artifacts, timed

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PINK, SIDE = (255, 0, 200), 60

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium or google-chrome is installed here to show the page"
)


def browser(tmp_path, *arguments: str) -> str:
    """Run the browser without a window, with a new profile. Returns its standard output."""
    profile = tmp_path / f"profile-{len(list(tmp_path.iterdir()))}"
    quiet = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--hide-scrollbars",
    )
    offline = ("--disable-background-networking", "--disable-component-update", "--disable-sync")
    done = subprocess.run(
        [CHROMIUM, *quiet, *offline, f"--user-data-dir={profile}", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


@pytest.fixture
def written(tmp_path):
    """The page of one run with one picture, which has a single colour."""
    file = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), PINK).save(file, format="PNG")
    folder = tmp_path / "results"
    save(folder, save_with_artifacts(folder, result(), {"infer": {"samples.png": file.getvalue()}}))
    cards, now = load_plugins().cards("metric"), datetime(2026, 1, 2, tzinfo=UTC)
    (tmp_path / "report.html").write_text(
        page(everything(folder), cards, folder=folder, version="1", now=now)
    )
    return tmp_path / "report.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_shows_its_picture_and_text(written, tmp_path, scheme):
    shot = tmp_path / "shot.png"
    dark = ("--blink-settings=preferredColorScheme=0",) if scheme == "dark" else ()
    browser(tmp_path, *dark, "--window-size=1000,1400", f"--screenshot={shot}", f"file://{written}")
    with Image.open(shot) as opened:
        picture = opened.convert("RGB")
    colours = {colour: count for count, colour in picture.getcolors(maxcolors=2**24)}
    assert colours[PINK] == SIDE * SIDE
    paper = picture.getpixel((2, 2))
    assert (sum(paper) > 700) == (scheme == "light")
    # Text: enough pixels that differ from the background in brightness.
    far = sum(
        count for colour, count in colours.items() if abs(sum(colour) - sum(paper)) > 400 and colour != PINK
    )
    assert far > 2000


def test_the_browser_logs_no_error(written, tmp_path):
    log = tmp_path / "log.txt"
    dom = browser(
        tmp_path, "--enable-logging", f"--log-file={log}", "--v=0", "--dump-dom", f"file://{written}"
    )
    assert "500 ± 5" in dom
    logged = log.read_text(errors="replace") if log.is_file() else ""
    assert not re.findall(r"CONSOLE.*", logged)


def test_the_page_can_be_printed(written, tmp_path):
    browser(tmp_path, f"--print-to-pdf={tmp_path / 'page.pdf'}", f"file://{written}")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF-")


#: Shows the page in a frame as wide as a phone, and writes the right edge of the first values of each table.
PHONE = """<!DOCTYPE html><iframe width=390 height=800 style="border:0" src="{page}"></iframe><pre></pre><script>
document.querySelector("iframe").onload = event => {{
  const inner = event.target.contentDocument;
  const cells = [...inner.querySelectorAll("table")]
    .filter(table => table.querySelector("td.number"))
    .map(table => table.className + ":" + Math.round(
      Math.max(...[...table.querySelectorAll("tbody tr")].map(
        row => (row.querySelector("data") || row.querySelector("td.number")).getBoundingClientRect().right))));
  const width = inner.documentElement.scrollWidth;
  document.querySelector("pre").textContent = "edges " + cells.join(" ") + " width " + width;
}};
</script>"""


def test_values_are_in_view_on_a_phone(tmp_path):
    folder = tmp_path / "results"
    metrics = {
        "AL": timed(0.5),
        "prefill_tokens_per_second": timed(12_345.0, "tokens/s"),
        "communication_exposed": timed(0.001),
        "PPL": Metric(value=312.25, unit="perplexity per token", provenance="evaluated", n=4096, sd=1.5),
    }
    runs = [
        result(f"{n}a" * 32, techniques={"quant": n}, stages={"infer": metrics}) for n in ("fp32", "int4")
    ]
    for n, run in enumerate(runs):
        save(folder, evolve(run, started=f"2026-01-0{n + 1}T00:00:00"))
    cards, now = load_plugins().cards("metric"), datetime(2026, 1, 2, tzinfo=UTC)
    # Labels are longer than names.
    cards = [
        evolve(
            card, metrics=tuple(evolve(i, label=f"{i.name} · a label of several words") for i in card.metrics)
        )
        for card in cards
    ]
    (folder / "comparison.json").write_text(to_json(compare([[run] for run in runs], cards)))
    (tmp_path / "report.html").write_text(
        page(everything(folder), cards, folder=folder, version="1", now=now)
    )
    (tmp_path / "phone.html").write_text(PHONE.format(page="report.html"))
    dom = browser(
        tmp_path,
        "--allow-file-access-from-files",
        "--virtual-time-budget=5000",
        "--dump-dom",
        f"file://{tmp_path / 'phone.html'}",
    )
    found = re.search(r"edges ([\w: ]+) width (\d+)", dom)
    assert found, dom[-500:]
    edges = dict(part.split(":") for part in found[1].split() if part.partition(":")[0])
    assert {"figures", "standings", "differences"} <= set(edges)
    for table in ("figures", "standings", "differences"):
        assert int(edges[table]) <= 390, edges
    assert int(found[2]) <= 390
