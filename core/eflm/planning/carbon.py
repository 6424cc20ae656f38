"""The carbon intensity of a region's electricity: yearly averages from codecarbon's table, without running it."""

from __future__ import annotations

import json
from importlib import metadata
from typing import Any

from eflm.errors import UsageError, did_you_mean
from eflm.protocol.energy import CarbonIntensity

#: In codecarbon's distribution; from Our World in Data, each country with the year of its figure.
DATA = "codecarbon/data/private_infra/global_energy_mix.json"


def carbon_intensity(region: str) -> CarbonIntensity:
    """The intensity of a country by its ISO 3166 three-letter code. UsageError for one that is not known."""
    mixes, version = _mixes()
    code = region.upper()
    if code not in mixes:
        raise UsageError(
            f"--carbon-region {region} is not known; {did_you_mean(code, mixes)}give the three-letter code of a "
            "country, such as FRA, DEU, USA or IND"
        )
    mix = mixes[code]
    return CarbonIntensity(
        region=f"{mix['country_name']} ({code})",
        grams_per_kwh=float(mix["carbon_intensity"]),
        year=int(mix["year"]),
        source=f"codecarbon {version}'s table, from Our World in Data",
    )


def _mixes() -> tuple[dict[str, dict[str, Any]], str]:
    try:
        distribution = metadata.distribution("codecarbon")
        text = distribution.read_text(f"../{DATA}")
    except metadata.PackageNotFoundError:
        text = None
    if text is None:
        raise UsageError(
            "--carbon-region needs codecarbon's table of carbon intensities; pip install 'eflm[carbon]' installs it"
        )
    return json.loads(text), distribution.version
