"""The cache keeps what several processes write at the same time, replaces damaged files, and is optional."""

from __future__ import annotations

import multiprocessing
import os
import time

import pytest

from eflm.cache import Cache, cache_folder, remember


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def in_two_processes(function, *arguments):
    """Call `function(number, barrier, *arguments)` in two processes; return what they return."""
    fork = multiprocessing.get_context("fork")
    barrier, answers = fork.Barrier(2), fork.SimpleQueue()

    def call(number):
        answers.put((number, function(number, barrier, *arguments)))

    processes = [fork.Process(target=call, args=(number,)) for number in range(2)]
    for process in processes:
        process.start()
    found = dict(answers.get() for _ in processes)
    for process in processes:
        process.join(10)
        assert process.exitcode == 0
    return [found[0], found[1]]


def test_entries_survive_in_the_file():
    Cache("entries.json").put("a", {"b": [1, 2]})
    Cache("entries.json").put("c", None)
    assert Cache("entries.json").get("a") == {"b": [1, 2]}
    assert Cache("entries.json").get("other") is None
    assert Cache("other.json").get("a") is None


def test_two_processes_that_put_at_the_same_time_lose_no_entry():
    def put(number, barrier):
        cache = Cache("entries.json")
        barrier.wait(10)
        for entry in range(25):
            cache.put(f"{number} {entry}", entry)

    in_two_processes(put)
    expected = {f"{number} {entry}": entry for number in range(2) for entry in range(25)}
    assert {key: Cache("entries.json").get(key) for key in expected} == expected


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b"\xff"])
def test_a_damaged_file_of_entries_is_replaced(damage):
    cache = Cache("entries.json")
    cache.put("a", 1)
    cache.path.write_bytes(damage)
    assert cache.get("a") is None
    cache.put("b", 2)
    assert cache.get("b") == 2


def test_content_is_made_once():
    made = []
    for _ in range(2):
        content = remember("thing", lambda: made.append(1) or b"content\nof two lines")
        assert content == b"content\nof two lines"
    assert len(made) == 1


def test_two_processes_that_need_the_same_content_make_it_once(tmp_path):
    def need(number, barrier):
        def make():
            time.sleep(0.3)
            (tmp_path / f"made by {number}").touch()
            return f"content of {number}".encode()

        barrier.wait(10)
        return remember("thing", make)

    first, second = in_two_processes(need)
    assert first == second
    [maker] = tmp_path.glob("made by *")
    assert first.decode() == f"content of {maker.name[-1]}"


def test_a_failure_to_make_content_is_raised_and_leaves_nothing():
    calls = []

    def fail():
        calls.append(1)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        remember("thing", fail)
    assert len(calls) == 1
    assert remember("thing", lambda: b"content") == b"content"


@pytest.mark.parametrize("damage", [b"", b"half", b"0" * 64 + b"\ncontent"])
def test_damaged_content_is_made_again(damage):
    remember("thing", lambda: b"content")
    file = cache_folder() / "thing"
    file.write_bytes(damage)
    assert remember("thing", lambda: b"content") == b"content"
    assert file.read_bytes().endswith(b"\ncontent")
    assert [name for name in os.listdir(cache_folder()) if "lock" not in name] == ["thing"]


def test_a_cache_folder_that_cannot_be_written_is_ignored(tmp_path):
    cache_folder().parent.mkdir(parents=True, exist_ok=True)
    cache_folder().write_text("a file in place of the folder")
    assert remember("thing", lambda: b"content") == b"content"
    Cache("entries.json").put("a", 1)
    assert Cache("entries.json").get("a") is None
