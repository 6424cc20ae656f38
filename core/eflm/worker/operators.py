"""Times the torch operators of one step or request. Runs in the worker, on work that is not part of the measurement.

It reports shares and no seconds, because timing every operator slows the work down, and so does counting floating-point
operations, for which the same work is used. `eflm compare` explains a difference with these shares. The profiler of
torch is not used: it keeps the memory that it allocates, which would be in all later memory samples of the worker.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from eflm.worker.windows import synchronizer

#: How many operators are reported by name. The sum of the other shares is what is missing to 1.
REPORTED = 12


class OperatorTimes:
    """Times the operators that run inside `watch`. `device`: where they run, such as "cpu" or "cuda:0"."""

    def __init__(self, device: str) -> None:
        self._synchronize = synchronizer(device)
        self._seconds: dict[str, float] = defaultdict(float)
        self.calls = 0  #: number of operator calls

    @property
    def shares(self) -> dict[str, float]:
        """The share of each operator in the time of all operators, largest first, after `watch` has ended."""
        total = sum(self._seconds.values())
        ranked = sorted(self._seconds.items(), key=lambda item: item[1], reverse=True)
        return {name: seconds / total for name, seconds in ranked[:REPORTED] if seconds}

    @contextmanager
    def watch(self) -> Iterator[None]:
        """A block whose operators are timed. Enter it before other dispatch modes, so that their work is not timed."""
        from torch.utils._python_dispatch import TorchDispatchMode

        outer = self

        class Mode(TorchDispatchMode):  # type: ignore[misc]
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                return outer._timed(func, args, kwargs or {})

        with Mode():
            yield

    def _timed(self, func: Any, args: Any, kwargs: Any) -> Any:
        self._synchronize()
        begin = time.perf_counter()
        result = func(*args, **kwargs)
        self._synchronize()
        self._seconds[func.name().partition(".")[0]] += time.perf_counter() - begin
        self.calls += 1
        return result
