"""The order from the parent to a worker: the run, the step, the checkpoints to start from, and what to write."""

from __future__ import annotations

from attrs import frozen

from eflm_schemas import RunSpec


@frozen(kw_only=True)
class Restore:
    """The checkpoint of an earlier step, which the worker reads."""

    step: str
    folder: str


@frozen(kw_only=True)
class WorkerOrder:
    """One line of JSON on the worker's standard input.

    `step`: a stage, "quantize" (pack the weights and write them), or "reference" (evaluate the model of the stage infer
    without measuring it). `restore`: the checkpoints of earlier steps, in their order. `checkpoint`: folder for the
    checkpoint of this step, or None. `save`: folder for the model that the user keeps (--save), or None.
    """

    spec: RunSpec
    step: str
    restore: tuple[Restore, ...] = ()
    checkpoint: str | None = None
    save: str | None = None
