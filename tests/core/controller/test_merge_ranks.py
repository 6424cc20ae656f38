"""Work and bytes of several ranks add up; times, and all other facts, are those of rank 0."""

from __future__ import annotations

from eflm.controller.event_log import EventLog
from eflm.controller.merge_ranks import merge_ranks
from eflm.protocol.record import Window
from eflm_schemas import Flag


def window(name: str, begin: int, tokens: int = 0, flops: float | None = None) -> Window:
    return Window(name=name, begin=begin, end=begin + 10, tokens=tokens, samples=1, flops=flops)


def log(*windows: Window, facts=(), flags=()) -> EventLog:
    return EventLog(windows=list(windows), stage_facts=dict(facts), flags=list(flags))


def test_one_rank_is_returned_as_it_is():
    alone = log(window("step", 0))
    assert merge_ranks([alone]) is alone


def test_windows_are_matched_by_name_and_order_and_summed():
    first = log(window("data", 0), window("step", 10, 4, 1.0), window("step", 20, 5, 2.0))
    second = log(window("step", 11, 40, 10.0), window("data", 1), window("step", 21, 50, None))
    assert merge_ranks([first, second]).windows == [
        Window(name="data", begin=0, end=10, samples=2),
        Window(name="step", begin=10, end=20, tokens=44, samples=2, flops=11.0),
        # One rank did not count, so the sum is unknown.
        Window(name="step", begin=20, end=30, tokens=55, samples=2, flops=None),
    ]


def test_a_window_that_other_ranks_lack_is_that_of_rank_0():
    only = window("all_reduce", 0, 3, 1.0)
    assert merge_ranks([log(only), log()]).windows == [only]


def test_bytes_are_summed_and_equal_flags_kept_once():
    shared, own = Flag(name="short", detail="few"), Flag(name="slow", detail="rank 1")
    merged = merge_ranks(
        [
            log(facts={"peak_resident_bytes": 3, "loss": 0.5}, flags=[shared]),
            log(facts={"peak_resident_bytes": 4, "loss": 0.7}, flags=[shared, own]),
        ]
    )
    assert merged.stage_facts == {"peak_resident_bytes": 7, "loss": 0.5}
    assert merged.flags == [shared, own]
