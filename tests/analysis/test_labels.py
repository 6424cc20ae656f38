"""Labels: short, different for every question, and without the environment unless it is the only difference."""

from __future__ import annotations

from attrs import evolve

from eflm_analysis.labels import labels
from support.results import ENVIRONMENT, result


def test_techniques_are_named_without_those_that_all_have():
    assert labels([result(techniques={"quant": name}) for name in ("fp32", "int4")]) == ("fp32", "int4")
    both = [result(techniques={"attention": "nsa", "quant": name}) for name in ("fp32", "int4")]
    assert labels(both) == ("fp32", "int4")
    assert labels([result(), both[1]]) == ("baseline", "nsa + int4")


def test_settings_that_differ_are_named():
    runs = [result(settings={"infer.batch_size": n, "infer.requests": 3}) for n in (1, 8)]
    assert labels(runs) == ("infer.batch_size 1", "infer.batch_size 8")


def test_models_are_named_if_their_content_differs():
    def run(path, content):
        return result(content, model=path, facts={"content": {"model": content}})

    assert labels([run("./one", "a1"), run("/x/two", "b2")]) == ("model one", "model two")
    assert labels([run("./one", "a1"), run("/x/two", "a1")]) == ("baseline (1)", "baseline (2)")
    assert labels([run("./one", "a1"), run("./one", "b2")]) == ("baseline, a1", "baseline, b2")


def test_environments_are_named_if_nothing_else_differs():
    gpu = evolve(ENVIRONMENT, device_name="a GPU")
    assert labels([result(), result(environment=gpu)]) == ("baseline, on a CPU", "baseline, on a GPU")
    assert labels([result(), result(techniques={"quant": "int4"}, environment=gpu)]) == ("baseline", "int4")
