"""Times the torch operators of one step or request. Runs in the worker, on work that is not part of the measurement.

Only the share of each operator is reported, because timing and counting operations slow the work down. `eflm compare`
explains differences with these shares. The profiler of torch is not used: it does not release the memory that it
allocates, so that memory would be in all later samples of the worker.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from eflm.worker.windows import synchronizer

#: Number of operators that are reported. Their shares add up to less than 1 if there are more.
REPORTED = 12


class OperatorTimes:
    """Times the operators that run inside `watch`. `device`: the device that runs them, such as "cpu" or "cuda:0"."""

    def __init__(self, device: str) -> None:
        self._synchronize = synchronizer(device)
        self._seconds: dict[str, float] = defaultdict(float)
        self.calls = 0  #: number of operator calls

    @property
    def shares(self) -> dict[str, float]:
        """Share of each operator in the time of all operators, largest first. Read it after `watch` has ended."""
        total = sum(self._seconds.values())
        ranked = sorted(self._seconds.items(), key=lambda item: item[1], reverse=True)
        return {name: seconds / total for name, seconds in ranked[:REPORTED] if seconds}

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Time the operators in the block. Enter it before other dispatch modes, whose work is then not timed."""
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
