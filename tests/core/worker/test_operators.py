"""Where time goes: one operator that takes almost all of it is found, forwards and backwards, beneath other modes."""

from __future__ import annotations

import torch

from eflm.worker import flops
from eflm.worker.operators import REPORTED, OperatorTimes


def test_a_large_product_takes_almost_all_the_time():
    square, small = torch.randn(600, 600, requires_grad=True), torch.randn(10)
    times = OperatorTimes("cpu")
    with times.watch(), flops.counter() as counter:
        ((square @ square).sum() + small.exp().sum()).backward()
    assert counter.get_total_flops() == 3 * 2 * 600**3  # beneath it the counter counts as ever
    assert next(iter(times.shares)) == "aten::mm"
    assert times.shares["aten::mm"] > 0.5
    assert "aten::exp" in times.shares or len(times.shares) == REPORTED


def test_shares_are_at_most_the_whole_and_ranked():
    times = OperatorTimes("cpu")
    with times.watch():
        torch.ones(100).exp().sum()
    shares = list(times.shares.values())
    assert shares == sorted(shares, reverse=True)
    assert 0.99 < sum(shares) <= 1 + 1e-9


def test_nothing_watched_is_nothing_told():
    assert OperatorTimes("cpu").shares == {}
