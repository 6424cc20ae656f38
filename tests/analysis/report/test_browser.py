"""A real browser shows the page: its pictures, its text, on screen in light and dark, and without asking anyone."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from datetime import UTC, datetime

import pytest
from PIL import Image

from eflm.registry.discovery import load_plugins
from eflm.results.store import save
from eflm_analysis.report.gather import everything
from eflm_analysis.report.page import page
from support.results import result, save_with_artifacts

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PINK, SIDE = (255, 0, 200), 60

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium or google-chrome is installed here to show the page"
)


def browser(tmp_path, *arguments: str) -> str:
    """Run it without a window, on a profile of its own; returns what it printed."""
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
    """A page of one run with one picture, all of one colour."""
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
def test_the_page_is_shown_with_its_picture(written, tmp_path, scheme):
    shot = tmp_path / "shot.png"
    dark = ("--blink-settings=preferredColorScheme=0",) if scheme == "dark" else ()
    browser(tmp_path, *dark, "--window-size=1000,1400", f"--screenshot={shot}", f"file://{written}")
    with Image.open(shot) as opened:
        picture = opened.convert("RGB")
    colours = {colour: count for count, colour in picture.getcolors(maxcolors=2**24)}
    assert colours[PINK] == SIDE * SIDE
    paper = picture.getpixel((2, 2))
    assert (sum(paper) > 700) == (scheme == "light")
    # Text: enough of it, and far from the paper in brightness.
    far = sum(
        count for colour, count in colours.items() if abs(sum(colour) - sum(paper)) > 400 and colour != PINK
    )
    assert far > 2000


def test_the_browser_finds_nothing_to_complain_of(written, tmp_path):
    log = tmp_path / "log.txt"
    dom = browser(
        tmp_path, "--enable-logging", f"--log-file={log}", "--v=0", "--dump-dom", f"file://{written}"
    )
    assert "500 ± 5" in dom
    told = log.read_text(errors="replace") if log.is_file() else ""
    assert not re.findall(r"CONSOLE.*", told)


def test_it_prints_on_paper(written, tmp_path):
    browser(tmp_path, f"--print-to-pdf={tmp_path / 'page.pdf'}", f"file://{written}")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF-")
