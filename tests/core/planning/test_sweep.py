"""Sweeps: lists of numbers are several runs, anything else is one."""

from __future__ import annotations

from eflm.planning.sweep import points, swept


def test_numbers_with_commas_are_points_in_their_order():
    settings = {"infer.batch_size": "1,8, 32", "nsa.window": "128", "llm.positions": "rope"}
    assert swept(settings) == ("infer.batch_size",)
    assert [point["infer.batch_size"] for point in points(settings)] == ["1", "8", "32"]
    assert all(point["nsa.window"] == "128" for point in points(settings))


def test_two_lists_are_all_pairs():
    found = points({"a.x": "1,2", "b.y": "0.5,1e-3"})
    assert [(p["a.x"], p["b.y"]) for p in found] == [("1", "0.5"), ("1", "1e-3"), ("2", "0.5"), ("2", "1e-3")]


def test_words_with_commas_are_one_value():
    settings = {"known.log": "/tmp/a,b", "x.names": "q,k,v", "y.n": "5"}
    assert swept(settings) == ()
    assert points(settings) == [settings]
