"""Starts the workers of one step, reads their events, and ends them. Runs in the parent process.

A step has one worker, or `--processes` workers that train together. All are killed at the end of the `with` block.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Self

from eflm.controller.worker_process import WorkerProcess
from eflm.protocol.order import WorkerOrder
from eflm.protocol.rendezvous import RANK, RENDEZVOUS
from eflm_schemas import RunSpec
from eflm_schemas.convert import to_json

#: After a worker has failed, the others get this long to end or to report an error.
SETTLE_SECONDS = 2.0


class WorkerTimeout(Exception):
    """The workers did not finish before the deadline."""


class WorkerGroup:
    """The workers for `order`, by rank.

    `preload`: modules that a fork server imports in addition to those of every run.

    Raises ImportTimeout if the fork server is still importing at `deadline` (time.monotonic).
    """

    def __init__(
        self,
        order: WorkerOrder,
        spec: RunSpec,
        preload: Iterable[str] = (),
        *,
        deadline: float | None = None,
    ) -> None:
        self._deadline = deadline
        self._settled: float | None = None
        rendezvous = _free_address() if spec.processes > 1 else ""
        line, preload = to_json(order), list(preload)
        with ExitStack() as started:
            self.workers = [
                started.enter_context(
                    WorkerProcess(
                        line,
                        isolation=spec.isolation,
                        preload=preload,
                        environment={RANK: str(rank), RENDEZVOUS: rendezvous},
                        deadline=deadline,
                    )
                )
                for rank in range(spec.processes)
            ]
            self._owned = started.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owned.__exit__(kind, error, trace)

    @property
    def pids(self) -> list[int]:
        return [worker.pid for worker in self.workers]

    @property
    def fallback(self) -> str | None:
        """Why workers were spawned although "forkserver" was requested; None otherwise."""
        return next((worker.fallback for worker in self.workers if worker.fallback is not None), None)

    def lines(self) -> Iterator[tuple[int, bytes | None]]:
        """Yield (rank, event) for each event, and (rank, None) when a worker has closed its pipe.

        Ends when all workers have closed their pipes. Raises WorkerTimeout at the deadline.
        """
        with selectors.DefaultSelector() as selector:
            for rank, worker in enumerate(self.workers):
                selector.register(worker, selectors.EVENT_READ, rank)
            while selector.get_map():
                now = time.monotonic()
                if self._deadline is not None and now >= self._deadline:
                    raise WorkerTimeout
                if self._settled is not None and now >= self._settled:
                    return
                ready = {key.data for key, _ in selector.select(self._wait_seconds(now))}
                for rank in sorted(ready):
                    lines = self.workers[rank].read()
                    if lines is None:
                        selector.unregister(self.workers[rank])
                        yield rank, None
                    else:
                        yield from ((rank, line) for line in lines)
                # A child of a worker may keep the pipe open after the worker has died.
                for key in [] if ready else list(selector.get_map().values()):
                    if not self.workers[key.data].alive():
                        selector.unregister(key.fileobj)
                        with suppress(BlockingIOError):  # events that it sent before it ended
                            yield from ((key.data, line) for line in self.workers[key.data].read() or [])
                        yield key.data, None

    def settle(self) -> None:
        """Make `lines` end after SETTLE_SECONDS. Called if a worker fails, because the others cannot continue then."""
        if self._settled is None:
            self._settled = time.monotonic() + SETTLE_SECONDS

    def _wait_seconds(self, now: float) -> float:
        ends = [end for end in (self._deadline, self._settled) if end is not None]
        return max(min([0.5, *(end - now for end in ends)]), 0.0)


def _free_address() -> str:
    """Return host:port of this machine with a port that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return "{}:{}".format(*listener.getsockname())
