"""One plugin as the registry holds it: its card, where it came from, and whether it can be used here."""

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
    """A card, where it came from, and whether it can be used here."""

    card: Card
    origin: PluginOrigin
    status: Status
    detail: str = ""  #: for "needs" and "broken": what is missing
    notes: tuple[str, ...] = ()  #: what a reader of the list should know of a plugin that works

    @property
    def qualified(self) -> str:
        """`distribution:name`, which stays unambiguous when another distribution offers the same name."""
        return f"{self.origin.distribution}:{self.card.name}"


@frozen(kw_only=True)
class BrokenPlugin:
    """A plugin that could not be loaded: none of its cards can be used."""

    name: str  #: of the entry point
    distribution: str
    version: str
    error: str


@frozen(kw_only=True)
class Source:
    """Where a manifest comes from."""

    name: str
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
    """A distribution's name as indexes compare it: case and the choice of separator do not matter."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def same_distribution(one: str, other: str) -> bool:
    return normal_name(one) == normal_name(other)


def status_of(card: Card, source: Source) -> tuple[Status, str]:
    missing = [name for name in card.requires if not _importable(name)]
    if missing:
        if card.extra:
            return "needs", f"needs extra {card.extra}: pip install '{source.distribution}[{card.extra}]'"
        return "needs", f"needs {', '.join(missing)}, which is not installed"
    for ref in (card.factory, card.config):
        module = ref.target.partition(":")[0] if ref else None
        if module and not _importable(module):
            return "broken", f"names {module}, and there is no such module"
    return "ready", ""


def _importable(module: str) -> bool:
    """Whether `module` can be found, assumed where only importing its parent package would tell."""
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        if count > 1 and ".".join(parts[: count - 1]) not in sys.modules:
            return True
        try:
            if importlib.util.find_spec(".".join(parts[:count])) is None:
                return False
        except ValueError:  # loaded, but without a spec
            continue
        except ImportError:
            return False
    return True


def one_line(error: BaseException) -> str:
    """An error on one line, with its type unless it is one of ours."""
    text = " ".join(str(error).split())
    if isinstance(error, PluginError):
        return text
    if isinstance(error, SystemExit):
        return f"it exits the program when it is loaded (SystemExit: {text or 0})"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
