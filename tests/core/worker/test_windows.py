"""Windows: real time between their ends, counts carried to later ones, and nothing lost or doubled."""

from __future__ import annotations

import time

import pytest
import torch

from eflm.worker.windows import Windows, synchronizer


@pytest.fixture
def emitted():
    return []


@pytest.fixture
def windows(emitted):
    return Windows(emitted.extend, lambda: None)


def test_a_window_lasts_as_long_as_its_work(windows, emitted):
    with windows.unit("step", tokens=8, samples=2):
        time.sleep(0.05)
    (window,) = emitted
    assert (window.name, window.tokens, window.samples, window.warmup) == ("step", 8, 2, False)
    assert 0.05 <= window.seconds < 0.07


def test_both_ends_wait_for_the_device():
    waited = []
    windows = Windows(lambda _: waited.append("emitted"), lambda: waited.append("synchronized"))
    with windows.unit("request"), windows.phase("prefill"):
        waited.append("work")
    assert waited == ["synchronized"] * 2 + ["work"] + ["synchronized"] * 2 + ["emitted"]


def test_phases_come_with_their_unit_and_inherit_its_warmup(windows, emitted):
    with windows.unit("request", warmup=True) as tally:
        with windows.phase("prefill", tokens=5):
            pass
        assert emitted == []  # nothing is written while a window is open
        with windows.phase("decode", tokens=3):
            pass
        tally.tokens, tally.samples = 4, 1
    assert [(w.name, w.tokens, w.warmup) for w in emitted] == [
        ("prefill", 5, True),
        ("decode", 3, True),
        ("request", 4, True),
    ]
    outer = emitted[2]
    assert all(outer.begin <= inner.begin <= inner.end <= outer.end for inner in emitted[:2])


def test_what_was_counted_is_expected_of_later_units_phase_by_phase(windows, emitted):
    small, large = torch.ones(4, 4), torch.ones(8, 8)

    def request():
        with windows.unit("request"):
            with windows.phase("decode"):
                small @ small
            with windows.phase("decode"):
                large @ large

    with windows.counting():
        request()
    request()
    expected = [2 * 4**3, 2 * 8**3, 2 * 4**3 + 2 * 8**3]
    assert [window.flops for window in emitted] == expected * 2


def test_stated_operations_stand_in_place_of_counted_ones(windows, emitted):
    square = torch.ones(4, 4)
    with windows.counting(), windows.unit("step", flops=7e9), windows.phase("forward"):
        square @ square
    with windows.unit("step", flops=9e9):
        pass
    assert [window.flops for window in emitted] == [2 * 4**3, 7e9, 9e9]


def test_longer_units_are_expected_to_do_more_in_proportion(windows, emitted):
    square = torch.ones(4, 4)
    with windows.counting(), windows.unit("step", extent=10):
        square @ square
    with windows.unit("step", extent=15):
        pass
    assert emitted[1].flops == 1.5 * 2 * 4**3


def test_nothing_counted_means_nothing_expected(windows, emitted):
    with windows.unit("step"):
        pass
    assert emitted[0].flops is None


def test_work_that_fails_leaves_no_window(windows, emitted):
    with pytest.raises(ZeroDivisionError), windows.unit("step"), windows.phase("forward"):
        raise ZeroDivisionError
    with windows.unit("step"):
        pass
    assert [window.name for window in emitted] == ["step"]


def test_units_do_not_nest(windows):
    with windows.unit("step"), pytest.raises(RuntimeError, match="unit of work"), windows.unit("step"):
        pass


def test_a_cpu_needs_no_waiting():
    assert synchronizer("cpu")() is None
