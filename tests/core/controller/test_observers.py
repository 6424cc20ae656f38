"""Observers are third-party code in the parent process: one that fails or hangs becomes a flag and is left out."""

from __future__ import annotations

import sys
import time
import types

import pytest

import eflm
from eflm.controller import observers as module
from eflm.controller.observers import Observers
from eflm.registry.registry import Registry
from eflm_schemas import ObserverCard, Ref

CALLED: list[tuple[str, str]] = []


class Observer:
    """Records its calls; `stage_started` is the call that may go wrong."""

    def __init__(self, name: str) -> None:
        self.name = name
        if name == "unmade":
            raise RuntimeError("by design")

    def run_started(self, spec, keys):
        CALLED.append((self.name, "run_started"))

    def stage_started(self, stage, key):
        CALLED.append((self.name, "stage_started"))
        print("on standard output")
        if self.name == "hangs":
            time.sleep(60)
        if self.name == "raises":
            raise ZeroDivisionError("by design")
        if self.name == "exits":
            sys.exit(3)

    def stage_finished(self, stage, result):
        CALLED.append((self.name, "stage_finished"))


@pytest.fixture
def observers(monkeypatch):
    """Make the observers of a run, given their names. A call times out after 0.2 s."""
    CALLED.clear()
    monkeypatch.setattr(module, "OBSERVER_SECONDS", 0.2)

    def make(*names: str) -> Observers:
        factories = types.ModuleType("observers_of_a_test")
        for name in names:
            setattr(factories, name, lambda options, name=name: Observer(name))
        monkeypatch.setitem(sys.modules, factories.__name__, factories)

        class Manifest:
            @eflm.hookimpl
            def eflm_observers(self):
                return [
                    ObserverCard(name=name, summary="", factory=Ref(f"{factories.__name__}:{name}"))
                    for name in names
                ]

        registry = Registry()
        registry.register(Manifest())
        return Observers(registry.entries("observer"))

    return make


@pytest.mark.parametrize(
    ("name", "fact"), [("raises", "ZeroDivisionError"), ("exits", "SystemExit"), ("hangs", "0.2 s")]
)
def test_one_that_fails_is_flagged_and_not_called_again(observers, name, fact, capsys):
    watching = observers(name, "good")
    watching.notify("run_started", None, {})
    begin = time.monotonic()
    watching.notify("stage_started", "infer", "key")
    assert time.monotonic() - begin < 5
    watching.notify("stage_finished", "infer", None)

    assert [event for of, event in CALLED if of == "good"] == [
        "run_started", "stage_started", "stage_finished",
    ]  # fmt: skip
    assert [event for of, event in CALLED if of == name] == ["run_started", "stage_started"]
    (flag,) = watching.flags
    assert flag.name == "observer_failed"
    assert all(word in flag.detail for word in (f"observer/{name}", "stage_started", fact))
    assert capsys.readouterr().out == ""


def test_one_that_cannot_be_made_is_flagged(observers):
    watching = observers("unmade", "good")
    watching.notify("run_started", None, {})
    assert CALLED == [("good", "run_started")]
    (flag,) = watching.flags
    assert "observer/unmade" in flag.detail
    assert "RuntimeError" in flag.detail


def test_one_that_lacks_a_method_is_flagged(observers):
    watching = observers("good")
    watching.notify("run_finished", None)
    (flag,) = watching.flags
    assert "run_finished" in flag.detail
