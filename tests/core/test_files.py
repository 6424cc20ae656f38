"""A file is written whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from eflm.files import write_atomically


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_it_replaces_the_file_with_the_mode_that_the_umask_allows(tmp_path, mask, mode):
    path = tmp_path / "new" / "folder" / "file"
    before = os.umask(mask)
    try:
        write_atomically(path, b"one")
        write_atomically(path, b"two")
    finally:
        os.umask(before)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == mode
    assert list(path.parent.iterdir()) == [path]


def test_it_does_not_change_the_umask_of_the_process(tmp_path, monkeypatch):
    # Other threads would create their files with it.
    monkeypatch.setattr(os, "umask", lambda _mask: pytest.fail("the umask was changed"))
    write_atomically(tmp_path / "file", b"one")
    assert (tmp_path / "file").read_bytes() == b"one"


def test_what_a_killed_process_left_is_removed_later(tmp_path):
    killed = (
        "import os, pathlib, signal, sys; from eflm import files; "
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL); "
        "files.write_atomically(pathlib.Path(sys.argv[1]), b'half')"
    )
    done = subprocess.run([sys.executable, "-c", killed, str(tmp_path / "other")], check=False)
    assert done.returncode == -9
    (left,) = tmp_path.iterdir()
    running = tmp_path / left.name.replace(left.name.split("-")[1], str(os.getpid()))
    running.touch()
    write_atomically(tmp_path / "file", b"one")
    assert left.exists()  # it may belong to a process on another machine
    for file in (left, running):
        os.utime(file, (time.time() - 86400,) * 2)
    write_atomically(tmp_path / "file", b"two")
    assert not left.exists()
    assert running.exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_the_old_content_stays_if_writing_fails(tmp_path, monkeypatch, error):
    path = tmp_path / "file"
    write_atomically(path, b"one")

    def refuse(descriptor):
        raise error

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(type(error)):
        write_atomically(path, b"two")
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]
