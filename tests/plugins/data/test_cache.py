"""The cache keeps what was made, mends what is damaged, and is done without where it cannot be."""

from __future__ import annotations

import os

import platformdirs
import pytest

from eflm_plugins.data.cache import remember


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda _name: str(tmp_path / "cache"))


def test_it_is_made_once():
    made = []
    for _ in range(2):
        assert (
            remember("thing", lambda: made.append(1) or b"content\nof two lines") == b"content\nof two lines"
        )
    assert len(made) == 1


@pytest.mark.parametrize("damage", [b"", b"half", b"0" * 64 + b"\ncontent"])
def test_a_damaged_file_is_made_again(tmp_path, damage):
    remember("thing", lambda: b"content")
    file = tmp_path / "cache" / "thing"
    file.write_bytes(damage)
    assert remember("thing", lambda: b"content") == b"content"
    assert file.read_bytes().endswith(b"\ncontent")
    assert os.listdir(tmp_path / "cache") == ["thing"]


def test_a_folder_that_cannot_be_made_is_done_without(tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert remember("thing", lambda: b"content") == b"content"
