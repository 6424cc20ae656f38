"""Fixtures for runs of the known-amounts modality, which all tests of this folder share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from support.known import PIECE, Known
from support.site import Site


@pytest.fixture(scope="session")
def installed(tmp_path_factory) -> Callable[[], AbstractContextManager[Site]]:
    """Install known-amounts once, and return a context manager that puts it on the path.

    The environment of workers is the same in all tests, so one fork server and one cache of peaks serve them.
    """
    site = Site(tmp_path_factory.mktemp("site"))
    site.install("known-amounts", PIECE.read_text())

    @contextmanager
    def on_path() -> Iterator[Site]:
        with pytest.MonkeyPatch.context() as patch:
            if str(site.root) not in sys.path:  # a second entry would be another environment
                patch.syspath_prepend(str(site.root))
            patch.setenv("XDG_CACHE_HOME", str(site.root / "cache"))
            # torch sets it when it is imported here, which would be another environment as well.
            patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(site.root / "inductor"))
            yield site

    return on_path


@pytest.fixture
def known(installed, tmp_path) -> Iterator[Known]:
    """Return plans and runs of the known-amounts modality with a log of this test's own."""
    with installed():
        yield Known(tmp_path / "log.jsonl")
