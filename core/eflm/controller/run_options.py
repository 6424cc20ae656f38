"""The options of `run` that are not part of the plan, and the errors that it raises."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from eflm.errors import EflmError
from eflm_schemas import RunResult


@frozen(kw_only=True)
class RunOptions:
    """Where a run saves its results, and which stages it skips.

    `results`: folder for results and checkpoints; None saves nothing. `reuse`: skip stages whose key has a finished
    result. `keep_checkpoints`: keep the checkpoints at the end of the run. `save`: folder for the model of the last
    stage.
    """

    results: Path | None = None
    reuse: bool = False
    keep_checkpoints: bool = False
    save: Path | None = None


class Terminated(BaseException):
    """The process received SIGTERM. The signal handler of the command line raises this."""


class Unsaved(EflmError):
    """A result or the final model could not be saved. `result` is the result of the run."""

    def __init__(self, message: str, result: RunResult) -> None:
        super().__init__(message)
        self.result = result
