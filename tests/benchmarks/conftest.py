"""Lets benchmarks use all cores. Other tests use one core per process."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True, scope="session")
def all_cores(request):
    """Let torch use all cores while times are measured."""
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
