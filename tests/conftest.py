"""Fixtures that the whole suite shares: the real plugins, the command line, and packages made on the spot."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.hub import Hub
from support.site import Site

# Set before anything imports torch, and inherited by every worker: the suite's models are too small for two
# threads to share, and threads that spin for work take the cores from the tests beside them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

#: What listing and composing must never import.
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
    """The built-in plugins, as a run finds them, whatever else this environment has installed."""
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
    """An empty folder of packages, which `eflm` puts first on the path."""
    root = tmp_path / "site"
    root.mkdir()
    return Site(root)


@pytest.fixture
def discover(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Any]]:
    """A function that loads the installed plugins and those of `site`, in this process."""
    from eflm import load_plugins

    monkeypatch.syspath_prepend(str(site.root))

    def load() -> Any:
        importlib.invalidate_caches()
        return load_plugins()

    yield load
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(site.root)):
            del sys.modules[name]


@pytest.fixture
def cli(discover: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run the command line in this process, in an empty folder, with the packages of `site`."""
    from click.testing import CliRunner

    from eflm.cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(*arguments: str, env: dict[str, str] | None = None) -> Any:
        importlib.invalidate_caches()
        return CliRunner().invoke(main, arguments, prog_name="eflm", env=env)

    return run


@pytest.fixture
def heavy() -> tuple[str, ...]:
    """The packages that listing and composing must never import."""
    return HEAVY


@pytest.fixture
def eflm(site: Site, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line in a process of its own, in a folder of its own, with `site` on its path."""

    def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        path = (str(site.root), os.environ.get("PYTHONPATH"))
        # In a pipe the output is as wide as it needs to be, unless whoever runs the tests has set a width.
        unsized = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        return subprocess.run(
            [sys.executable, "-m", "eflm", *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=tmp_path,
            env={**unsized, "PYTHONPATH": os.pathsep.join(filter(None, path)), **(env or {})},
        )

    return run


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub of this test's own, in this process and in those that it starts, with an empty cache and no token."""
    from huggingface_hub import constants

    with Hub() as served:
        cache = tmp_path / "hf-home"
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        monkeypatch.setenv("HF_HOME", str(cache))
        # This process read its environment long ago.
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        template = served.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield served
