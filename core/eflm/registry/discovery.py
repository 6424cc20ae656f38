"""Finds the installed plugins through the entry-point group `eflm`. A broken plugin does not affect the others.

Called by the command line, by `eflm.bench` and `eflm.build`, and by workers. It imports manifests only
(see `eflm.registry.hookspecs`), so it needs no torch and takes milliseconds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import metadata

from eflm.registry.entry import Source, normal_name, same_distribution
from eflm.registry.registry import OWN_DISTRIBUTION, Registry

GROUP = "eflm"


def load_plugins() -> Registry:
    """Return a registry of all installed plugins. Plugins that cannot be loaded are in `Registry.broken`.

    The environment variable EFLM_PLUGINS selects which third-party plugins are loaded: a comma-separated list of
    distributions or entry-point names. If it is not set, all are loaded; if it is empty, none.
    """
    registry = Registry()
    wanted = _wanted(os.environ.get("EFLM_PLUGINS"))
    unmatched = set(wanted or ())
    for entry_point, source in _entry_points(registry):
        if not same_distribution(source.distribution, OWN_DISTRIBUTION):
            names = {normal_name(source.distribution), normal_name(source.name)}
            unmatched -= names
            if wanted is not None and not names & wanted:
                continue
        registry.load(entry_point, source)
    for name in sorted(unmatched):
        registry.add_note(f"EFLM_PLUGINS selects {name!r}, but no installed plugin has this name")
    return registry


def _entry_points(registry: Registry) -> Iterator[tuple[metadata.EntryPoint, Source]]:
    """Yield the entry points of the group, built-ins first. Unreadable metadata is recorded as a broken plugin."""
    found: dict[str, list[tuple[metadata.EntryPoint, Source]]] = {}
    for distribution in metadata.distributions():
        # `metadata.entry_points()` fails for all distributions if the metadata of one is damaged.
        try:
            if GROUP not in (distribution.read_text("entry_points.txt") or ""):
                continue
            name = distribution.metadata["Name"]
            if not name or normal_name(name) in found:
                continue
            # Python imports from the first distribution of this name on the path.
            distribution = metadata.distribution(name)
            points = [point for point in distribution.entry_points if point.group == GROUP]
            version = distribution.version
        except Exception as error:
            where = str(getattr(distribution, "_path", "an installed distribution"))
            source = Source(name="entry_points.txt", distribution=where, version="")
            registry.add_broken(source.broken(error))
            continue
        found[normal_name(name)] = [
            (point, Source(name=point.name, distribution=name, version=version))
            for point in sorted(points, key=lambda point: point.name)
        ]
    for name in sorted(found, key=lambda name: (name != OWN_DISTRIBUTION, name)):
        yield from found[name]


def _wanted(value: str | None) -> set[str] | None:
    return None if value is None else {normal_name(part) for part in value.split(",") if part.strip()}
