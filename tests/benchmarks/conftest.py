"""Benchmarks have the machine to themselves: all of its cores, where the rest of the suite takes one a process."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True, scope="session")
def every_core(request):
    """torch on every core while times are taken."""
    if not request.config.getoption("--benchmark-only"):
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    )
    yield
    torch.set_num_threads(before)
