"""Finds the stages of a chain that an earlier run has measured already. Runs in the parent process."""

from __future__ import annotations

from eflm.controller.run_options import RunOptions
from eflm.planning.keys import Chain
from eflm.planning.plan import Plan
from eflm.results import stages as saved
from eflm.results.checkpoint_folders import CheckpointFolders
from eflm_schemas import StageDocument


def reusable(
    plan: Plan, steps: Chain, options: RunOptions, checkpoints: CheckpointFolders | None = None
) -> dict[str, StageDocument]:
    """Return the stored documents of the stages that are skipped, by the name of the stage.

    A stage is skipped if its document exists and contains all metrics of `plan`. If a later stage has to run, or the
    model is saved, the checkpoints of the skipped stage and of all steps before it must exist, too.
    """
    if options.results is None or not options.reuse:
        return {}
    found: dict[str, StageDocument] = {}
    later_runs = options.save is not None
    metrics = {chosen.origin for chosen in plan.metrics}
    folders = checkpoints or CheckpointFolders(options.results)
    for link in reversed(steps.links):
        if not link.is_stage:
            continue
        document = saved.find_stage(options.results, link.key)
        up_to = (*steps.before(link.name), link)
        kept = all(folders.find(earlier.checkpoint) is not None for earlier in up_to)
        if document is not None and metrics <= set(document.plugins) and (not later_runs or kept):
            found[link.name] = document
        else:
            later_runs = True
    return found
