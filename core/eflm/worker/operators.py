"""Where the time of a step or request goes, by torch operator. Called in the worker, on a piece of work of its own.

Only shares come out of it: timing every operator slows work down, and so does counting, which the same piece of work
serves. They are what `eflm compare` explains a loss with. torch's own profiler keeps memory that it once took, which
would then stand in every later sample of the worker's.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from eflm.worker.windows import synchronizer

#: Operators that are told by name; the others' shares are what is missing to 1.
TOLD = 12


class OperatorTimes:
    """`shares`: operator -> its share of the time of all operators, the largest first; known once the watch is over."""

    def __init__(self, device: str) -> None:
        self._synchronize = synchronizer(device)
        self._seconds: dict[str, float] = defaultdict(float)
        self.calls = 0  #: of operators in all

    @property
    def shares(self) -> dict[str, float]:
        total = sum(self._seconds.values())
        ranked = sorted(self._seconds.items(), key=lambda item: item[1], reverse=True)
        return {name: seconds / total for name, seconds in ranked[:TOLD] if seconds}

    @contextmanager
    def watch(self) -> Iterator[None]:
        """A block whose operators are timed. Entered before other dispatch modes, it times none of their work."""
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
