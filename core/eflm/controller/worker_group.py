"""The workers of one run: a single one, or as many as train together. They are started, listened to and ended as one.

`eflm.controller.run` owns one team per run. Whatever happens in the `with` block, no worker outlives it.
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
from eflm.protocol.rendezvous import RANK, RENDEZVOUS
from eflm_schemas import RunSpec
from eflm_schemas.convert import to_json

#: How long the others may take to end, or to say why they cannot go on, once one of them has given up.
SETTLE_SECONDS = 2.0


class WorkerTimeout(Exception):
    """The workers did not finish within the time that the spec gives them."""


class Team:
    """The workers of `spec`, by rank; what they import besides what every run does is in `preload`."""

    def __init__(self, spec: RunSpec, preload: Iterable[str] = ()) -> None:
        self._deadline = None if spec.timeout is None else time.monotonic() + spec.timeout
        self._settled: float | None = None
        meeting = _free_address() if spec.processes > 1 else ""
        order, preload = to_json(spec), list(preload)
        with ExitStack() as started:
            self.workers = [
                started.enter_context(
                    WorkerProcess(
                        order,
                        isolation=spec.isolation,
                        preload=preload,
                        environment={RANK: str(rank), RENDEZVOUS: meeting},
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
        """Why workers were spawned although forks were asked for."""
        return next((worker.fallback for worker in self.workers if worker.fallback is not None), None)

    def lines(self) -> Iterator[tuple[int, bytes | None]]:
        """Each worker's events as they come, with its rank, and None when it has closed its pipe; until all have.

        WorkerTimeout when their time is up.
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
                heard = {key.data for key, _ in selector.select(self._patience(now))}
                for rank in sorted(heard):
                    lines = self.workers[rank].read()
                    if lines is None:
                        selector.unregister(self.workers[rank])
                        yield rank, None
                    else:
                        yield from ((rank, line) for line in lines)
                # A child of a worker may hold the pipe open after the worker itself has died.
                for key in [] if heard else list(selector.get_map().values()):
                    if not self.workers[key.data].alive():
                        selector.unregister(key.fileobj)
                        with suppress(BlockingIOError):  # it may have said something since
                            yield from ((key.data, line) for line in self.workers[key.data].read() or [])
                        yield key.data, None

    def settle(self) -> None:
        """One of them has given up, so the others cannot go on: `lines` soon ends, whether they do or not."""
        if self._settled is None:
            self._settled = time.monotonic() + SETTLE_SECONDS

    def _patience(self, now: float) -> float:
        ends = [end for end in (self._deadline, self._settled) if end is not None]
        return max(min([0.5, *(end - now for end in ends)]), 0.0)


def _free_address() -> str:
    """Where nobody on this machine listens now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return "{}:{}".format(*listener.getsockname())
