"""The ruler's own test piece, installed."""

from __future__ import annotations

import pytest

from support.known import PIECE, Known


@pytest.fixture
def known(site, monkeypatch, tmp_path):
    """Compose a plan of the known-amounts modality; `log()` is what its worker wrote of itself."""
    site.install("known-amounts", PIECE.read_text())
    monkeypatch.syspath_prepend(str(site.root))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Known(tmp_path / "log.jsonl")
