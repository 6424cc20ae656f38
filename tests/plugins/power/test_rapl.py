"""RAPL, read from files in the format of the kernel, since the machine of the tests may have none."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from eflm.protocol.energy import NoEnergy
from eflm_plugins.power.rapl import Rapl, find_rapl


def domain(root: Path, folder: str, name: str, microjoules: int, span: int = 1_000_000) -> Path:
    place = root / folder
    place.mkdir(parents=True)
    (place / "name").write_text(f"{name}\n")
    (place / "max_energy_range_uj").write_text(f"{span}\n")
    counter = place / "energy_uj"
    counter.write_text(f"{microjoules}\n")
    return counter


def test_packages_and_dram_are_added_and_their_parts_are_not(tmp_path):
    first = domain(tmp_path, "intel-rapl:0", "package-0", 100)
    domain(tmp_path, "intel-rapl:0:0", "core", 100)
    dram = domain(tmp_path, "intel-rapl:0:1", "dram", 100)
    domain(tmp_path, "intel-rapl:1", "psys", 100)
    domain(tmp_path, "intel-rapl-mmio:0", "package-0", 100)  # the first package again
    rapl = find_rapl(tmp_path)
    assert isinstance(rapl, Rapl)
    assert rapl.source == "RAPL dram + package"
    assert rapl.read() == {"energy": 0.0}

    first.write_text("300100")
    dram.write_text("50100")
    assert rapl.read() == {"energy": pytest.approx(0.35)}


def test_a_counter_that_wraps_around_goes_on(tmp_path):
    counter = domain(tmp_path, "intel-rapl:0", "package-0", 999_000, span=999_999)
    rapl = find_rapl(tmp_path)

    counter.write_text("500")
    assert rapl.read() == {"energy": pytest.approx(0.0015)}
    counter.write_text("400")
    assert rapl.read() == {"energy": pytest.approx(1.0014)}


def test_a_machine_without_domains_has_no_energy(tmp_path):
    found = find_rapl(tmp_path)
    assert isinstance(found, NoEnergy)
    assert str(tmp_path) in found.reason


def test_a_counter_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    domain(tmp_path, "intel-rapl:0", "package-0", 1)
    refused = domain(tmp_path, "intel-rapl:1", "package-1", 1)
    real = Path.read_text

    def read(path, *arguments, **keywords):
        # Tests may run as root, who may read every file.
        if path == refused:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *arguments, **keywords)

    monkeypatch.setattr(Path, "read_text", read)
    found = find_rapl(tmp_path)
    assert isinstance(found, NoEnergy)
    assert "root" in found.reason
    assert str(refused) in found.reason
