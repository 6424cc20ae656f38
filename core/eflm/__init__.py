"""eflm: which efficiency technique pays off, for this model, on this hardware?"""

from eflm.errors import DataError, EflmError, ModelError, PluginError, RunFailed, UsageError
from eflm.hookspecs import hookimpl

__version__ = "0.1.0"

__all__ = ["DataError", "EflmError", "ModelError", "PluginError", "RunFailed", "UsageError", "hookimpl"]
