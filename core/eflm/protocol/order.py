"""The order of a worker: which step of which run it carries out, from which checkpoints, and where it writes."""

from __future__ import annotations

from attrs import frozen

from eflm_schemas import RunSpec


@frozen(kw_only=True)
class Restore:
    """A checkpoint of an earlier step."""

    step: str
    folder: str


@frozen(kw_only=True)
class WorkerOrder:
    """One line of JSON on the worker's standard input.

    `step` is a stage, "quantize" (pack the weights and write them), or "reference" (evaluate the model of the stage
    infer, without measuring it). `restore` lists the checkpoints of earlier steps in their order. `checkpoint` and
    `save` are folders to write, or None.
    """

    spec: RunSpec
    step: str
    restore: tuple[Restore, ...] = ()
    checkpoint: str | None = None
    save: str | None = None
