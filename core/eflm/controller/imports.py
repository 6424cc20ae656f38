"""Lists the modules that a fork server imports for a run in addition to those of every run."""

from __future__ import annotations

import os

from eflm.machine import NVIDIA_DRIVER
from eflm.planning.plan import Plan
from eflm.registry.registry import OWN_DISTRIBUTION


def imports_of(plan: Plan) -> list[str]:
    """Return the modules that the workers of `plan` need and that a fork server can import safely.

    Some libraries initialize CUDA when they are imported, and a forked process could then not use the GPU. So on a
    machine with an NVIDIA driver, the modules that technique cards require are left out unless the device is "cpu".
    """
    import_may_initialize_cuda = plan.spec.device != "cpu" and os.path.exists(NVIDIA_DRIVER)
    modules = []
    if not import_may_initialize_cuda:
        modules += [name for chosen in plan.techniques for name in chosen.card.requires]
    if plan.spec.processes > 1:
        modules.append("eflm.worker.stages.replicas")
    # The module of a third-party modality may have side effects when it is imported.
    if plan.modality.origin.distribution == OWN_DISTRIBUTION:
        modules.append(plan.modality.card.factory.target.partition(":")[0])
    return modules
