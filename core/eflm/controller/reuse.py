"""Which stages of a chain need not run again."""

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
    """The stages of a chain that need not run, by name: their result is there, with every metric that takes part now.

    If a later stage runs, the checkpoints up to this one must be there, too.
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
