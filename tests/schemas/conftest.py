"""Fixtures of the documents' tests."""

import pytest

from eflm_schemas import Environment


@pytest.fixture(scope="session")
def environment():
    """A machine, as a result describes it."""
    return Environment(
        device="cpu",
        device_name="A CPU",
        cpu="A CPU",
        cpu_count=2,
        threads=2,
        memory_bytes=8 * 10**9,
        platform="Linux",
        python="3.11.7",
        packages={"torch": "2.13.0"},
    )
