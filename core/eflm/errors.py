"""The errors that users see. Each message says what was asked, why it fails, and what would work."""

from __future__ import annotations

from collections.abc import Iterable


class EflmError(Exception):
    """Base class of all errors that eflm raises. The command line prints them without a traceback."""


class UsageError(EflmError):
    """An invalid request: an unknown plugin, an unsupported combination, or an invalid setting (exit code 2)."""


class PluginError(EflmError):
    """A plugin that is broken, that lacks a dependency, or that conflicts with another one (exit code 2)."""


class DataError(EflmError):
    """Data that cannot be read, or that does not fit a stage."""


class ModelError(EflmError):
    """A model that cannot be loaded, does not fit into memory, or does not work with a technique."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "did you mean X? " with the known word most similar to `word`, or "" if none is similar."""
    from difflib import get_close_matches

    near = get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]}? " if near else ""
