"""A file is written whole or not at all."""

from __future__ import annotations

import os

import pytest

from eflm.files import write_atomically


def test_it_is_there_whole_and_alone_and_open_to_others(tmp_path):
    path = tmp_path / "new" / "folder" / "file"
    before = os.umask(0o022)
    try:
        write_atomically(path, b"one")
        write_atomically(path, b"two")
    finally:
        os.umask(before)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("trouble", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_was_there_stays_when_the_writing_fails(tmp_path, monkeypatch, trouble):
    path = tmp_path / "file"
    write_atomically(path, b"one")

    def refuse(descriptor):
        raise trouble

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(type(trouble)):
        write_atomically(path, b"two")
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]
