"""Carbon intensity by country, with year and source."""

from __future__ import annotations

from importlib import metadata

import pytest

from eflm.errors import UsageError
from eflm.planning.carbon import carbon_intensity


def test_a_country_has_an_intensity_with_year_and_source():
    found = carbon_intensity("fra")
    assert found.region == "France (FRA)"
    assert 10 < found.grams_per_kwh < 150 < carbon_intensity("POL").grams_per_kwh
    assert found.year >= 2020
    assert metadata.version("codecarbon") in found.source


def test_an_unknown_region_raises():
    with pytest.raises(UsageError, match=r"--carbon-region FRE.*FRA"):
        carbon_intensity("FRE")


def test_without_codecarbon_the_error_names_the_extra(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    with pytest.raises(UsageError, match=r"eflm\[carbon\]"):
        carbon_intensity("FRA")
