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

import jsonschema
import pytest

from eflm_schemas.jsonschema import result_schema

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

    def bench(self, stage: str, **more: str) -> dict:
        """Run a short benchmark and return its result document."""
        settings = [part for name, value in SMALL.items() if name.startswith((stage, "llm", "sink"))
                    for part in ("--set", f"{name}={value}")]  # fmt: skip
        flags = [part for name, value in more.items() for part in (f"--{name}", value)]
        return json.loads(
            self.run("-m", "eflm", "bench", "--json", "--device", "cpu", "--stage", stage, *settings, *flags)
        )


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
    """An environment with the example package installed, without downloads."""
    home = Home(tmp_path_factory.mktemp("home") / "venv")
    pip = ["-m", "pip", "--python", home.python, "install", "--quiet", "--no-index", "--no-deps", str(wheel)]
    outcome = subprocess.run([sys.executable, *pip], capture_output=True, text=True, timeout=120, check=False)
    assert outcome.returncode == 0, outcome.stderr
    assert (home.packages / "eflm_plugin_hello" / "hooks.py").is_file()
    return home


def test_list_plugins_shows_its_plugins_and_their_distribution(home):
    document = json.loads(home.run("-m", "eflm", "list-plugins", "--json"))
    listed = {
        (plugin["kind"], plugin["name"]): plugin
        for plugin in document["plugins"]
        if plugin["distribution"] == PROJECT["name"]
    }
    assert set(listed) == {
        ("attention", "sink"),
        ("metric", "steadiness"),
        ("command", "lowest"),
        ("observer", "stage-log"),
    }
    for plugin in listed.values():
        assert plugin["version"] == PROJECT["version"]
        assert plugin["status"] == "ready", plugin["detail"]
        assert plugin["notes"] == []


def test_show_prints_its_options(home):
    document = json.loads(home.run("-m", "eflm", "show", "attention/sink", "--json"))
    assert {option["name"]: option["default"] for option in document["options"]} == {
        "window": 1020,
        "sinks": 4,
    }


@pytest.mark.parametrize("stage", ["pretrain", "infer"])
def test_bench_runs_its_attention_and_its_metric(home, stage):
    result = home.bench(stage, attention="sink")
    jsonschema.validate(result, result_schema())
    assert result["status"] == "ok", result["reason"]
    origin = {"distribution": PROJECT["name"], "version": PROJECT["version"]}
    assert {"plugin": "attention/sink", **origin} in result["plugins"]
    assert {"plugin": "metric/steadiness", **origin} in result["plugins"]
    assert result["options"]["attention/sink"] == {"window": 16, "sinks": 2}
    metrics = result["stages"][stage]["metrics"]
    assert metrics["AL_cv"]["n"] == SMALL["pretrain.steps" if stage == "pretrain" else "infer.requests"]
    # AL_cv uses the same windows as eflm's latency metric, so the two must agree.
    assert metrics["AL_cv"]["value"] == pytest.approx(metrics["AL"]["sd"] / metrics["AL"]["value"])


def test_its_observer_follows_a_run_and_its_command_reads_the_result(home, tmp_path, monkeypatch):
    monkeypatch.setenv("HELLO_STAGE_LOG", str(tmp_path / "log"))
    settings = [part for name, value in SMALL.items() if name.startswith("infer.")
                for part in ("--set", f"{name}={value}")]  # fmt: skip
    home.run(
        *("-m", "eflm", "bench", "--json", "--device", "cpu", "--stage", "infer"), *settings, cwd=tmp_path
    )
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["run_started", "stage_finished", "run_finished"]
    assert lines[-1]["status"] == "ok"
    assert "lowest" in home.run("-m", "eflm", "--help")
    assert " s  infer  " in home.run("-m", "eflm", "lowest", "AL", cwd=tmp_path)


def test_a_broken_plugin_is_reported_and_others_still_work(home):
    (home.packages / "eflm_plugin_broken.py").write_text(
        "raise RuntimeError('this plugin is broken on purpose')\n"
    )
    info = home.packages / "eflm_plugin_broken-3.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: eflm-plugin-broken\nVersion: 3.1\n")
    (info / "entry_points.txt").write_text("[eflm]\nbroken = eflm_plugin_broken\n")
    document = json.loads(home.run("-m", "eflm", "list-plugins", "--json"))
    (broken,) = document["broken"]
    assert (broken["distribution"], broken["version"]) == ("eflm-plugin-broken", "3.1")
    assert "broken on purpose" in broken["error"]
    assert "sink" in {plugin["name"] for plugin in document["plugins"]}
    result = home.bench("pretrain", attention="sink")
    assert result["status"] == "ok", result["reason"]
    assert result["stages"]["pretrain"]["metrics"]["AL_cv"]["value"] > 0


@pytest.mark.slow
def test_its_own_tests_pass(home):
    output = home.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "pyproject.toml", cwd=EXAMPLE)
    assert " passed" in output
    assert "skipped" not in output
