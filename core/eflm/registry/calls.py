"""Calls into plugins: whatever a plugin raises names the plugin and its distribution."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from eflm.errors import EflmError, PluginError


@contextmanager
def called(label: str, what: str) -> Iterator[None]:
    """A block that calls `what` of the plugin `label` ("attention/nsa (eflm 0.1.0)").

    Errors of eflm's own classes and running out of memory pass through; any other exception becomes a PluginError.
    """
    try:
        yield
    except (EflmError, MemoryError):
        raise
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's; this module imports no torch
            raise
        said = " ".join(str(error).split())
        raise PluginError(f"{label} failed in its {what}: {type(error).__name__}: {said}") from error
