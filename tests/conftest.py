"""Fixtures for all tests: the built-in plugins, the command line, temporary packages, and a local Hub."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.hub import Hub
from support.known import PIECE
from support.site import Site

# Set before torch is imported, and inherited by all workers. The models of the tests are too small for two threads, and
# spinning threads would take cores from tests that run in parallel.
os.environ.setdefault("OMP_NUM_THREADS", "1")

#: Packages that listing plugins and composing must not import.
HEAVY = (
    "torch",
    "transformers",
    "peft",
    "diffusers",
    "bitsandbytes",
    "pynvml",
    "accelerate",
    "tokenizers",
    "jinja2",
)


@pytest.fixture(scope="session")
def registry():
    """The registry of the built-in plugins, without third-party plugins that are installed in this environment."""
    from eflm import load_plugins

    before = os.environ.get("EFLM_PLUGINS")
    os.environ["EFLM_PLUGINS"] = ""
    try:
        return load_plugins()
    finally:
        if before is None:
            del os.environ["EFLM_PLUGINS"]
        else:
            os.environ["EFLM_PLUGINS"] = before


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An empty folder of packages. The fixture `eflm` puts it first on the path."""
    root = tmp_path / "site"
    root.mkdir()
    return Site(root)


@pytest.fixture
def discover(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Any]]:
    """A function that loads the installed plugins and those of `site`, in this process."""
    from eflm import load_plugins

    def load() -> Any:
        _put_on_path(site, monkeypatch)
        return load_plugins()

    yield load
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(site.root)):
            del sys.modules[name]


def _put_on_path(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without packages the path stays as it is, so that all such tests have one environment and one fork server.
    if any(site.root.iterdir()) and str(site.root) not in sys.path:
        monkeypatch.syspath_prepend(str(site.root))
    importlib.invalidate_caches()


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
            patch.setenv("PYTHONPATH", str(site.root))  # for commands in other processes
            patch.setenv("XDG_CACHE_HOME", str(site.root / "cache"))
            # torch sets it when it is imported here, which would be another environment as well.
            patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(site.root / "inductor"))
            yield site

    return on_path


@pytest.fixture
def cli(
    discover: Callable[[], Any], site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Run the command line in this process, in an empty folder, with the packages of `site`."""
    from click.testing import CliRunner

    from eflm.cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(*arguments: str, env: dict[str, str] | None = None) -> Any:
        _put_on_path(site, monkeypatch)
        return CliRunner().invoke(main, arguments, prog_name="eflm", env=env)

    return run


@pytest.fixture
def heavy() -> tuple[str, ...]:
    """Packages that listing plugins and composing must not import."""
    return HEAVY


@pytest.fixture
def eflm_path(site: Site) -> dict[str, str]:
    """The environment of a process that finds the packages of `site` first."""
    return _environment(site)


def _environment(site: Site) -> dict[str, str]:
    path = (str(site.root), os.environ.get("PYTHONPATH"))
    # In a pipe the output is as wide as it needs to be, unless the caller has set a width.
    unsized = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    return {**unsized, "PYTHONPATH": os.pathsep.join(filter(None, path))}


@pytest.fixture
def eflm(site: Site, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line in another process, in an empty folder, with the packages of `site`.

    `cli` is the same in this process, and takes a tenth of the time.
    """

    def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "eflm", *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=tmp_path,
            # Read now: other fixtures may have changed the environment since.
            env={**_environment(site), **(env or {})},
        )

    return run


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A local Hub for this test and the processes that it starts, with an empty cache and no token."""
    from huggingface_hub import constants

    with Hub() as served:
        cache = tmp_path / "hf-home"
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        monkeypatch.setenv("HF_HOME", str(cache))
        # huggingface_hub read the environment when it was imported.
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        template = served.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield served
