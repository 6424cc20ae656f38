"""The cache stores content, replaces damaged files, and is skipped if its folder is not writable."""

from __future__ import annotations

import os

import platformdirs
import pytest

from eflm.cache import remember


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda _name: str(tmp_path / "cache"))


def test_content_is_made_once():
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


def test_an_unwritable_cache_folder_is_ignored(tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert remember("thing", lambda: b"content") == b"content"
