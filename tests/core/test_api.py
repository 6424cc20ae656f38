"""eflm from Python: the names that it exports, and that importing it is fast."""

from __future__ import annotations

import json
import subprocess
import sys
import types

import pytest

import eflm
from eflm.errors import UsageError
from eflm.registry.registry import Registry
from eflm_schemas import ModalityCard, Preset, Ref

SMALL = {
    "infer.requests": 2,
    "infer.seconds": 0,
    "infer.prompt_tokens": 16,
    "infer.new_tokens": 4,
    "llm.eval_tokens": 512,
}


def test_every_exported_name_exists():
    for name in eflm.__all__:
        assert getattr(eflm, name) is not None
        assert name in dir(eflm)
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = eflm.nothing_like_it


def test_importing_eflm_imports_only_what_it_needs(heavy):
    names = (*heavy, "eflm.controller.run", "eflm.registry.registry", "cattrs", "rich")
    code = f"import eflm, sys; print([n for n in {names!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("call", [eflm.bench, eflm.build], ids=["bench", "build"])
@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        ({"attention": "nsaa"}, "did you mean nsa"),
        ({"seed": -1}, "seed"),
        ({"settings": {"nsa.window": 64}}, "--attention nsa"),
        ({"device": "gpu"}, "auto, cpu, cuda"),
        ({"atention": "nsa"}, "did you mean attention"),
    ],
    ids=["plugin", "seed", "setting", "device", "argument"],
)
def test_an_invalid_request_raises(call, arguments, facts):
    with pytest.raises(UsageError, match=facts):
        call(**arguments)


def test_bench_returns_the_result_and_saves_it_only_with_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = eflm.bench(stages="infer", settings=SMALL, device="cpu", isolation="none")
    assert result.status == "ok", result.reason
    assert result.stages["infer"].metrics["AL"].value > 0
    assert result.spec.settings["infer.requests"] == 2
    assert list(tmp_path.iterdir()) == []

    kept = tmp_path / "kept"
    failed = eflm.bench(stages=["infer"], settings=SMALL, data="absent.txt", isolation="none", results=kept)
    assert failed.status == "failed"
    assert "absent.txt" in failed.reason
    [saved] = kept.glob("*.json")
    assert json.loads(saved.read_text())["reason"] == failed.reason


def test_build_returns_the_composed_model_in_this_process():
    model = eflm.build(attention="mqa", settings={"llm.eval_tokens": 512})
    assert type(model).__name__ == "Qwen2ForCausalLM"
    again = eflm.build(attention="mqa", seed=1)
    weight, other = model.model.embed_tokens.weight, again.model.embed_tokens.weight
    assert weight.shape == other.shape
    assert not weight.equal(other)


def test_build_takes_plugins_of_this_process(monkeypatch):
    built = []
    module = types.ModuleType("in_process")
    module.Loader = lambda options: built.append(options) or _Workshop()
    monkeypatch.setitem(sys.modules, "in_process", module)
    registry = Registry()
    card = ModalityCard(
        name="toy",
        summary="a loader that exists in this process only",
        source="this test",
        factory=Ref("in_process:Loader"),
        presets=(Preset("unit", "one linear layer"),),
    )
    module.eflm_modality_loader = eflm.hookimpl(lambda: [card])
    registry.register(module)
    model = eflm.build("unit", modality="toy", registry=registry)
    assert built == [None]
    assert type(model).__name__ == "Linear"


class _Workshop:
    """A workload of one linear layer."""

    host = None
    facts = types.MappingProxyType({})
    flags = ()

    def prepare(self, request):
        assert request.model == "unit"
        return self

    def build_model(self, *, from_scratch, load_kwargs):
        import torch

        assert from_scratch
        return torch.nn.Linear(2, 2)
