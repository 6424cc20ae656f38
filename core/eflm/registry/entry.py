"""The entry of a plugin in the registry: its card, its distribution, and whether it can be used on this machine."""

from __future__ import annotations

import importlib.util
import re
import sys
from typing import Literal

from attrs import frozen

from eflm.errors import PluginError
from eflm_schemas import Card, PluginOrigin

Status = Literal["ready", "needs", "broken"]


@frozen(kw_only=True)
class Entry:
    """A card, the distribution that it comes from, and whether it can be used on this machine."""

    card: Card
    origin: PluginOrigin
    status: Status
    detail: str = ""  #: for "needs" and "broken": what is missing
    notes: tuple[str, ...] = ()  #: remarks for `eflm list-plugins`

    @property
    def qualified(self) -> str:
        """`distribution:name`, which is unambiguous also if several distributions have a plugin of this name."""
        return f"{self.origin.distribution}:{self.card.name}"


@frozen(kw_only=True)
class BrokenPlugin:
    """A plugin that could not be loaded, so that none of its cards can be used."""

    name: str  #: name of the entry point
    distribution: str
    version: str
    error: str


@frozen(kw_only=True)
class Source:
    """Where a manifest comes from."""

    name: str  #: name of the entry point
    distribution: str
    version: str

    def broken(self, error: BaseException | str) -> BrokenPlugin:
        return BrokenPlugin(
            name=self.name,
            distribution=self.distribution,
            version=self.version,
            error=error if isinstance(error, str) else one_line(error),
        )


def normal_name(name: str) -> str:
    """Return the normalized name of a distribution, in which case and separators do not matter (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def same_distribution(one: str, other: str) -> bool:
    return normal_name(one) == normal_name(other)


def status_of(card: Card, source: Source) -> tuple[Status, str]:
    """Return whether a card can be used on this machine, and if not, what is missing."""
    missing = [name for name in card.requires if not _importable(name)]
    if missing:
        if card.extra:
            return "needs", f"needs extra {card.extra}: pip install '{source.distribution}[{card.extra}]'"
        return "needs", f"needs {', '.join(missing)}, which is not installed"
    for ref in (card.factory, card.config):
        module = ref.target.partition(":")[0] if ref else None
        if module and not _importable(module):
            return "broken", f"names the module {module}, which does not exist"
    return "ready", ""


def _importable(module: str) -> bool:
    """Whether `module` can be found. Assumed to be true if finding out would import its parent package."""
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        if count > 1 and ".".join(parts[: count - 1]) not in sys.modules:
            return True
        try:
            if importlib.util.find_spec(".".join(parts[:count])) is None:
                return False
        except ValueError:  # it is loaded, but has no spec
            continue
        except ImportError:
            return False
    return True


def one_line(error: BaseException) -> str:
    """Return an error on one line, with its type unless it is a PluginError."""
    text = " ".join(str(error).split())
    if isinstance(error, PluginError):
        return text
    if isinstance(error, SystemExit):
        return f"loading it exits the program (SystemExit: {text or 0})"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
