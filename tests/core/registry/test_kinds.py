"""A further kind of technique needs its card class and one row in the table of kinds, and nothing else in core."""

from __future__ import annotations

import importlib
import json
import sys

import pytest
import torch

import eflm
from eflm.errors import UsageError
from eflm.planning.compose import compose
from eflm.planning.keys import chain
from eflm.registry import kinds
from eflm_schemas import Ref, RunSpec
from support.third_party import NormCard, Scale

PACKAGE = """
    import eflm
    from eflm_schemas import Ref
    from support.third_party import NormCard

    @eflm.hookimpl
    def eflm_norm():
        return [
            NormCard(
                name=name,
                summary="multiplies",
                source="a test",
                factory=Ref("support.third_party:Scale"),
                config=Ref("support.third_party:ScaleOptions"),
            )
            for name in ("scale", "other-scale")
        ]
"""


@pytest.fixture
def norms(site, discover, monkeypatch):
    """A fifth kind of technique, and the registry with a third-party package that has two of them."""
    row = kinds.TechniqueKind(
        card=NormCard,
        title="Norms",
        doc="Offer norms.",
        flag="norm",
        help="Norm of the hidden states.",
        apply=Ref("support.third_party:replace_norms"),
        before="pretrain",
    )
    # Options of the command line are made when its module is imported. Import the modules without the kind first, so
    # that monkeypatch restores them without it.
    for module in ("bench", "list_plugins", "options"):
        importlib.import_module(f"eflm.cli.{module}")
        monkeypatch.delitem(sys.modules, f"eflm.cli.{module}")
        monkeypatch.delattr(f"eflm.cli.{module}")
    monkeypatch.setattr(kinds, "TECHNIQUES", (*kinds.TECHNIQUES, row))
    site.install("eflm-norms", PACKAGE)
    return discover()


def test_it_takes_part_in_planning(norms):
    plan = compose(RunSpec(techniques={"norm": "scale"}, settings={"scale.factor": "0.5"}), norms)
    assert plan.technique("norm").options.factor == 0.5
    assert plan.spec.techniques["norm"] == "scale"
    assert compose(plan.spec, norms) == plan
    with pytest.raises(UsageError, match="did you mean scale"):
        compose(RunSpec(techniques={"norm": "scael"}), norms)

    without = chain(compose(RunSpec(), norms)).links
    assert [a.key != b.key for a, b in zip(chain(plan).links, without, strict=True)] == [True, True, True]


def test_build_applies_it(norms):
    model = eflm.build(norm="scale", settings={"scale.factor": 0.5}, registry=norms)
    replaced = [module for module in model.modules() if isinstance(module, Scale)]
    assert len(replaced) == 2 * len(model.model.layers)
    assert {module.factor for module in replaced} == {0.5}
    assert torch.isfinite(model(torch.arange(8)[None]).logits).all()


def test_the_command_line_lists_it_and_has_its_option(norms, cli):
    listed = json.loads(cli("list-plugins", "--kind", "norm", "--json").stdout)["plugins"]
    assert [(p["kind"], p["name"], p["status"]) for p in listed] == [
        ("norm", "scale", "ready"),
        ("norm", "other-scale", "ready"),
    ]
    assert "Norms" in cli("list-plugins").stdout
    assert "factor" in cli("show", "norm/scale").stdout
    assert "--norm" in cli("bench", "--help").stdout
    done = cli("bench", "--norm", "scale,other-scale", "--dry-run", "--json")
    assert done.exit_code == 0, done.stderr
    runs = json.loads(done.stdout)["runs"]
    assert [run["spec"]["techniques"]["norm"] for run in runs] == ["scale", "other-scale"]
    assert runs[0]["options"]["norm/scale"] == {"factor": 1.0}
