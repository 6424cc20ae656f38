"""Fixtures for runs of the known-amounts modality, which all tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.known import Known


@pytest.fixture
def known(installed, tmp_path) -> Iterator[Known]:
    """Return plans and runs of the known-amounts modality with a log of this test's own."""
    with installed():
        yield Known(tmp_path / "log.jsonl")
