"""What a manifest or a command of a plugin prints is not on standard output, even if it comes from C code."""

from __future__ import annotations

import json
import os
import sys
import threading
from io import StringIO

import pytest

from eflm.streams import stdout_for_results

NOISY = """
import ctypes, os
import eflm
from eflm_schemas import CommandCard, Ref

print("from print")
os.write(1, b"from os.write\\n")
ctypes.CDLL(None).printf(b"from C\\n")

@eflm.hookimpl
def eflm_commands():
    os.write(1, b"from a hook\\n")
    return [CommandCard(name="greet", summary="Greets.", factory=Ref("greeting:command"))]
"""
GREETING = """
import os
import click

os.write(1, b"from the command's module\\n")

@click.command()
def command():
    click.echo("hello")
"""
PRINTED = ("from print", "from os.write", "from C", "from a hook")


@pytest.fixture
def noisy(site):
    site.install("noisy", NOISY)
    (site.root / "greeting.py").write_text(GREETING)
    return site


def test_a_manifest_that_prints_does_not_corrupt_the_list_of_plugins(noisy, eflm):
    done = eflm("list-plugins", "--json", env={"EFLM_PLUGINS": "noisy"})
    assert done.returncode == 0, done.stderr
    names = {(plugin["distribution"], plugin["name"]) for plugin in json.loads(done.stdout)["plugins"]}
    assert ("noisy", "greet") in names
    for text in PRINTED:
        assert text in done.stderr


def test_a_command_of_a_plugin_prints_its_own_output_only(noisy, eflm):
    done = eflm("greet", env={"EFLM_PLUGINS": "noisy"})
    assert (done.returncode, done.stdout) == (0, "hello\n")
    assert "from the command's module" in done.stderr


def test_standard_output_is_restored_after_the_last_of_several_blocks(capfd, monkeypatch):
    monkeypatch.setattr(sys, "stdout", open(1, "w", closefd=False))  # noqa: SIM115
    opened, close = threading.Event(), threading.Event()

    def other():
        with stdout_for_results():
            opened.set()
            close.wait(60)

    thread = threading.Thread(target=other)
    with stdout_for_results():
        thread.start()
        opened.wait(60)
    os.write(1, b"inside a block of the other thread\n")
    close.set()
    thread.join(60)
    os.write(1, b"after the blocks\n")
    captured = capfd.readouterr()
    assert captured.out == "after the blocks\n"
    assert captured.err == "inside a block of the other thread\n"


def test_a_replaced_standard_output_gets_nothing_either(monkeypatch):
    streams = StringIO(), StringIO()
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    with stdout_for_results():
        print("from a plugin")
    print("from the command")
    assert [stream.getvalue() for stream in streams] == ["from the command\n", "from a plugin\n"]
