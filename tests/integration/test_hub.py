"""Hub ids at the command line: fetched from a local Hub, identified by their commit, and usable without the Hub."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from support.saved import save_decoder, save_dit, save_flow, save_vl

SERVED = ("--device=cpu", "--stage=infer", "--set=infer.requests=2", "--set=infer.seconds=0")
WORDS = ("--set=infer.new_tokens=4", "--set=infer.prompt_tokens=16", "--set=llm.eval_tokens=512")


def pictures(modality: str, *more: str) -> tuple[str, ...]:
    """The least work of a modality that denoises."""
    few = (f"--set={modality}.{name}" for name in ("eval_samples=10", "denoising_steps=2", *more))
    return (f"--modality={modality}", *few)


#: How each family is saved, and the least that the command can do with it.
FAMILIES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "llm": (save_decoder, WORDS),
    "qwen2.5-vl": (
        save_vl,
        ("--modality=qwen2.5-vl", "--set=qwen2.5-vl.eval_questions=8", "--set=infer.new_tokens=4"),
    ),
    "dit": (save_dit, pictures("dit")),
    "sd3.5": (partial(save_flow, "sd3.5"), pictures("sd3.5")),
    "wan2.1": (partial(save_flow, "wan2.1"), pictures("wan2.1", "resolution=16", "frames=5")),
}


#: One in `make test`, all in `make test-all`: each case starts a process that imports torch and diffusers.
EACH = pytest.mark.parametrize(
    "family", ["llm", *(pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES if name != "llm")]
)


def bench(cli, *arguments: str) -> dict[str, Any]:
    """The result document of a run that succeeded."""
    done = cli("bench", *SERVED, "--json", *arguments)
    assert done.stdout, done.stderr
    result = json.loads(done.stdout)
    assert (done.exit_code, result["status"]) == (0, "ok"), result["reason"]
    return result


def refused(cli, *arguments: str) -> str:
    """What a person reads of a run that failed: no traceback, one sentence, and where the result is."""
    done = cli("bench", *SERVED, *arguments)
    assert done.exit_code == 1
    assert "Traceback" not in done.stdout + done.stderr
    [line] = [line for line in (done.stdout + done.stderr).splitlines() if "--model org/" in line]
    return line


@EACH
def test_a_hub_id_runs_names_its_commit_and_runs_again_without_the_hub(family, cli, hub, tmp_path: Path):
    save, least = FAMILIES[family]
    save(tmp_path / "saved")
    commit = hub.publish("org/tiny", tmp_path / "saved")
    first = bench(cli, "--model=org/tiny", *least)
    assert first["facts"]["model_revision"] == commit
    assert first["stages"]["infer"]["metrics"]["AL"]["value"] > 0
    hub.close()
    again = bench(cli, "--model=org/tiny", *least)
    assert again["facts"]["model_revision"] == commit


@pytest.mark.slow
@EACH
def test_missing_and_gated_ids_are_refused_in_one_sentence(family, cli, hub, tmp_path: Path):
    save, least = FAMILIES[family]
    save(tmp_path / "saved")
    hub.publish("org/gated", tmp_path / "saved", token="hf_accepted")
    gated = refused(cli, "--model=org/gated", *least)
    assert all(fact in gated for fact in ("--model org/gated", "gated", f"{hub.url}/org/gated", "HF_TOKEN"))
    missing = refused(cli, "--model=org/missing", *least)
    assert all(fact in missing for fact in ("--model org/missing", "folder", "Hub", "HF_TOKEN"))


@pytest.mark.slow
def test_a_revision_is_run_as_it_was(cli, hub, tmp_path: Path):
    save_decoder(tmp_path / "saved")
    first = hub.publish("org/tiny", tmp_path / "saved")
    (tmp_path / "saved" / "README.md").write_text("Trained further.")
    second = hub.publish("org/tiny", tmp_path / "saved")
    newest = bench(cli, "--model=org/tiny", *WORDS)["facts"]["model_revision"]
    old = bench(cli, f"--model=org/tiny@{first}", *WORDS)
    assert (newest, old["facts"]["model_revision"]) == (second, first)
    assert old["spec"]["model"] == f"org/tiny@{first}"
