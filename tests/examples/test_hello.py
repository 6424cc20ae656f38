"""The example package is built, installed in a separate environment, listed, and run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pytest

from eflm_schemas.jsonschema import result_schema
from support.site import Site

EXAMPLE = Path(__file__).parents[2] / "examples" / "eflm-plugin-hello"
PROJECT = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]

#: The smallest run that still gives measurements.
SMALL = {
    "llm.eval_tokens": 256,
    "llm.eval_sequence_length": 64,
    "pretrain.steps": 3,
    "pretrain.warmup_steps": 1,
    "pretrain.batch_size": 2,
    "pretrain.sequence_length": 64,
    "infer.requests": 2,
    "infer.seconds": 0,
    "infer.prompt_tokens": 48,
    "infer.new_tokens": 4,
    "sink.window": 16,
    "sink.sinks": 2,
}


class Home:
    """A virtual environment that also sees the packages of the current environment."""

    def __init__(self, root: Path) -> None:
        venv.create(root, symlinks=True)
        self.root = root
        self.python = str(root / "bin" / "python")
        paths = {"base": str(root), "platbase": str(root)}
        self.packages = Path(sysconfig.get_path("purelib", "venv", paths))
        # Unlike a plain path, addsitedir also reads the .pth file of an editable installation of eflm.
        outer = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        lines = [f"import site; site.addsitedir({path!r})" for path in sorted(outer)]
        (self.packages / "outer.pth").write_text("\n".join(lines) + "\n")

    def run(self, *arguments: str, cwd: Path | None = None, timeout: float = 150) -> str:
        """Run its Python and return the standard output; a failed command fails the test."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("EFLM_", "PYTHON"))}
        # With matrices this small, several threads are slower than one.
        environment = kept | {"OMP_NUM_THREADS": "1"}
        outcome = subprocess.run(
            [self.python, "-B", *arguments],
            capture_output=True,
            text=True,
            cwd=cwd or self.root,
            timeout=timeout,
            env=environment,
            check=False,
        )
        assert outcome.returncode == 0, outcome.stderr or outcome.stdout
        return outcome.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of the example package."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(EXAMPLE)]
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def home(wheel, tmp_path_factory) -> Home:
    """An environment with the example package and a broken plugin, installed without downloads."""
    home = Home(tmp_path_factory.mktemp("home") / "venv")
    pip = ["-m", "pip", "--python", home.python, "install", "--quiet", "--no-index", "--no-deps", str(wheel)]
    outcome = subprocess.run([sys.executable, *pip], capture_output=True, text=True, timeout=120, check=False)
    assert outcome.returncode == 0, outcome.stderr
    assert (home.packages / "eflm_plugin_hello" / "hooks.py").is_file()
    broken = "raise RuntimeError('this plugin is broken on purpose')"
    Site(home.packages).install("eflm-plugin-broken", broken, version="3.1", entry="broken")
    return home


@pytest.fixture(scope="module")
def listed(home) -> dict:
    """What `eflm list-plugins --json` prints."""
    return json.loads(home.run("-m", "eflm", "list-plugins", "--json"))


@pytest.fixture(scope="module")
def run(home, tmp_path_factory) -> SimpleNamespace:
    """Run the attention of the example once, in both stages: the working folder, the result, and the stage log."""
    folder = tmp_path_factory.mktemp("run")
    settings = [part for name, value in SMALL.items() for part in ("--set", f"{name}={value}")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HELLO_STAGE_LOG", str(folder / "log"))
        printed = home.run(
            *("-m", "eflm", "bench", "--json", "--device", "cpu", "--attention", "sink"),
            *("--stage", "pretrain", "--stage", "infer", *settings),
            cwd=folder,
        )
    log = [json.loads(line) for line in (folder / "log").read_text().splitlines()]
    return SimpleNamespace(folder=folder, result=json.loads(printed), log=log)


def test_list_plugins_shows_its_plugins_and_their_distribution(listed):
    own = {
        (plugin["kind"], plugin["name"]): plugin
        for plugin in listed["plugins"]
        if plugin["distribution"] == PROJECT["name"]
    }
    assert set(own) == {
        ("attention", "sink"),
        ("metric", "steadiness"),
        ("command", "lowest"),
        ("observer", "stage-log"),
    }
    for plugin in own.values():
        assert plugin["version"] == PROJECT["version"]
        assert plugin["status"] == "ready", plugin["detail"]
        assert plugin["notes"] == []


def test_a_broken_plugin_is_listed_and_the_others_work(listed, run):
    (broken,) = listed["broken"]
    assert (broken["distribution"], broken["version"]) == ("eflm-plugin-broken", "3.1")
    assert "broken on purpose" in broken["error"]
    assert "sink" in {plugin["name"] for plugin in listed["plugins"]}
    assert run.result["status"] == "ok", run.result["reason"]


def test_show_prints_its_options(home):
    document = json.loads(home.run("-m", "eflm", "show", "attention/sink", "--json"))
    assert {option["name"]: option["default"] for option in document["options"]} == {
        "window": 1020,
        "sinks": 4,
    }


def test_a_result_names_its_plugins_and_their_options(run):
    jsonschema.validate(run.result, result_schema())
    origin = {"distribution": PROJECT["name"], "version": PROJECT["version"]}
    assert {"plugin": "attention/sink", **origin} in run.result["plugins"]
    assert {"plugin": "metric/steadiness", **origin} in run.result["plugins"]
    assert run.result["options"]["attention/sink"] == {"window": 16, "sinks": 2}


@pytest.mark.parametrize(("stage", "count"), [("pretrain", "pretrain.steps"), ("infer", "infer.requests")])
def test_its_metric_is_in_every_stage(run, stage, count):
    metrics = run.result["stages"][stage]["metrics"]
    assert metrics["AL_cv"]["n"] == SMALL[count]
    # AL_cv uses the same windows as eflm's latency metric, so the two must agree.
    assert metrics["AL_cv"]["value"] == pytest.approx(metrics["AL"]["sd"] / metrics["AL"]["value"])


def test_its_observer_follows_the_run(run):
    assert [line["event"] for line in run.log] == [
        "run_started",
        "stage_finished",
        "stage_finished",
        "run_finished",
    ]
    assert run.log[-1]["status"] == "ok"


def test_its_command_reads_the_result(home, run):
    assert "lowest" in home.run("-m", "eflm", "--help")
    assert " s  infer  " in home.run("-m", "eflm", "lowest", "AL", cwd=run.folder)


def test_its_own_tests_pass(home):
    output = home.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "pyproject.toml", cwd=EXAMPLE)
    assert " passed" in output
    assert "skipped" not in output
