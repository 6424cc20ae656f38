"""Plans for runs of the known-amounts modality, and access to the log that its workers write."""

from __future__ import annotations

import json
import time
from pathlib import Path

import psutil

from eflm import load_plugins
from eflm.planning.compose import compose
from eflm_schemas import RunSpec

PIECE = Path(__file__).with_name("known_amounts.py")


class Known:
    def __init__(self, path: Path) -> None:
        self.path = path

    def plan(self, *stages: str, timeout: float | None = None, seed: int = 0, **settings):
        fixed = {
            "known.log": str(self.path),
            "pretrain.steps": 4,
            "pretrain.warmup_steps": 1,
            "infer.requests": 4,
            "infer.seconds": 0,
            "infer.warmup_requests": 1,
        }
        given = {name.replace("__", "."): value for name, value in settings.items()}
        settings = {k: v for k, v in (fixed | given).items() if k.split(".")[0] in ("known", *stages)}
        spec = RunSpec(
            model="amounts", modality="known", stages=stages, settings=settings, seed=seed, timeout=timeout,
            device="cpu", isolation="spawn",
        )  # fmt: skip
        return compose(spec, load_plugins())

    def by_process(self) -> list[list[dict]]:
        """Return the log lines of each rank, in the order of the ranks."""
        lines = self.log()
        ranks = range(max(line["rank"] for line in lines) + 1)
        return [[line for line in lines if line["rank"] == rank] for rank in ranks]

    def log(self) -> list[dict]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]


def gone(pid: int, within: float = 10.0) -> bool:
    """Wait until the process has ended or is a zombie; return False if it still runs after `within` seconds."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False
