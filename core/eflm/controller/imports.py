"""Which modules a fork server imports for a run, besides those that every run needs."""

from __future__ import annotations

import os

from eflm.machine import NVIDIA_DRIVER
from eflm.planning.plan import Plan
from eflm.registry.registry import OWN_DISTRIBUTION


def imports_of(plan: Plan) -> list[str]:
    """Modules that the workers of `plan` will import. Only those whose import has no side effect on a GPU."""
    # Some libraries look for a GPU as soon as they are imported, after which no fork could use it.
    careful = plan.spec.device != "cpu" and os.path.exists(NVIDIA_DRIVER)
    modules = [] if careful else [name for chosen in plan.techniques for name in chosen.card.requires]
    if plan.spec.processes > 1:
        modules.append("eflm.worker.stages.replicas")
    if plan.modality.origin.distribution == OWN_DISTRIBUTION:  # another one's may do more than define things
        modules.append(plan.modality.card.factory.target.partition(":")[0])
    return modules
