"""eflm: which efficiency technique pays off, for this model, on this hardware?

The names for plugin authors and notebooks. Importing this package does not import torch.
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
    # Manifests of plugins import `eflm` for `hookimpl`, which must not import what only runs need.
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
