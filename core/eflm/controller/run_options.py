"""What a caller of `run` chooses besides the plan, and how a run can end other than with a saved result."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from eflm.errors import EflmError
from eflm_schemas import RunResult


@frozen(kw_only=True)
class RunOptions:
    """What a run does besides answering its question.

    `results`: the folder that everything is saved in; None saves nothing. `reuse`: stages with a finished result of
    their key are not run again. `save`: a folder for the model of the last stage.
    """

    results: Path | None = None
    reuse: bool = False
    keep_checkpoints: bool = False
    save: Path | None = None


class Terminated(BaseException):
    """SIGTERM arrived; the command line raises it."""


class Unsaved(EflmError):
    """A result or the final model could not be saved. `result` is the result of the run."""

    def __init__(self, message: str, result: RunResult) -> None:
        super().__init__(message)
        self.result = result
