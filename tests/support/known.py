"""Plans for runs of the known-amounts modality, and access to the log that its workers write."""

from __future__ import annotations

import json
import time
from pathlib import Path

import psutil

from eflm import load_plugins
from eflm.controller.run import run
from eflm.controller.run_options import RunOptions
from eflm.planning.compose import compose
from eflm.planning.plan import Plan
from eflm_schemas import RunResult, RunSpec

PIECE = Path(__file__).with_name("known_amounts.py")


#: Settings of the smallest run.
SMALL = {
    "pretrain.steps": 4,
    "pretrain.warmup_steps": 1,
    "infer.requests": 4,
    "infer.seconds": 0,
    "infer.warmup_requests": 1,
}
#: A step is logged once for the rehearsal, which counts operations, and once for each warm-up step.
REHEARSAL_AND_WARMUP = 2


class Known:
    """Plans and runs of the known-amounts modality, which log to `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def plan(self, *stages: str, settings: dict[str, object] | None = None, **fields: object) -> Plan:
        """Compose a run of `stages`. `settings` add to `SMALL`; `fields` are those of `RunSpec`."""
        given = {"known.log": str(self.path), **SMALL, **(settings or {})}
        used = {name: value for name, value in given.items() if name.split(".")[0] in ("known", *stages)}
        fixed = {"device": "cpu", "isolation": "forkserver"}
        spec = RunSpec(model="amounts", modality="known", stages=stages, settings=used, **{**fixed, **fields})
        return compose(spec, load_plugins())

    def run(self, *stages: str, progress=None, options: RunOptions | None = None, **more) -> RunResult:
        """Run what `plan` composes from the other arguments."""
        return run(self.plan(*stages, **more), load_plugins(), options, progress=progress)

    def command(
        self, *stages: str, settings: dict[str, object] | None = None, isolation: str = "forkserver"
    ) -> list[str]:
        """Return the arguments of `eflm bench` for the same run."""
        plan = self.plan(*stages, settings=settings)
        return [
            "bench", "--model=amounts", "--modality=known", "--device=cpu", f"--isolation={isolation}",
            *(f"--stage={stage}" for stage in stages),
            *(f"--set={name}={value}" for name, value in plan.spec.settings.items()),
        ]  # fmt: skip

    def by_process(self, stage: str | None = None) -> list[list[dict]]:
        """Return the log lines of each rank, in the order of the ranks."""
        lines = self.log(stage)
        ranks = range(max(line["rank"] for line in lines) + 1)
        return [[line for line in lines if line["rank"] == rank] for rank in ranks]

    def log(self, stage: str | None = None) -> list[dict]:
        """Return the log lines, of one stage if `stage` is given."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [line for line in map(json.loads, lines) if stage in (None, line["stage"])]

    def clear(self) -> None:
        """Delete the log, so that it holds only what the next run writes."""
        self.path.unlink(missing_ok=True)


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
