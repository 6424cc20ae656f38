"""eflm: which efficiency technique pays off, for this model, on this hardware?

What a plugin author or a notebook needs, and nothing else. Importing it imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eflm.errors import DataError, EflmError, ModelError, PluginError, UsageError
from eflm.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from eflm.api import bench, build
    from eflm.registry.discovery import load_plugins

__version__ = "0.1.0"

__all__ = [
    "DataError",
    "EflmError",
    "ModelError",
    "PluginError",
    "UsageError",
    "__version__",
    "bench",
    "build",
    "hookimpl",
    "load_plugins",
]

_LAZY = {"bench": "eflm.api", "build": "eflm.api", "load_plugins": "eflm.registry.discovery"}


def __getattr__(name: str) -> Any:
    # A plugin's manifest imports `eflm` for `hookimpl`: it should not pay for what only a run needs.
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
