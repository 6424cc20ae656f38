"""The errors a user may meet. Each message says what was asked, why it cannot be, and what would work."""

from __future__ import annotations

from collections.abc import Iterable


class EflmError(Exception):
    """The root of every error that eflm raises on purpose. The command line prints it without a traceback."""


class UsageError(EflmError):
    """The request itself cannot be: an unknown plugin, an illegal combination, a bad setting (exit code 2)."""


class PluginError(EflmError):
    """A plugin is broken, missing something, or collides with another."""


class DataError(EflmError):
    """Data that cannot be read or is not what a stage needs."""


class ModelError(EflmError):
    """A model that cannot be loaded, or that a technique's host cannot serve."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ "did you mean …? " with the nearest of the known words, or nothing where none is near."""
    from difflib import get_close_matches

    near = get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]}? " if near else ""
