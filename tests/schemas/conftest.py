"""Fixtures for the tests of the schemas."""

import pytest

from eflm_schemas import Environment


@pytest.fixture(scope="session")
def environment():
    """The environment of a result."""
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
