"""The errors a user may meet. Each message says what was asked, why it cannot be, and what would work."""

from __future__ import annotations


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
