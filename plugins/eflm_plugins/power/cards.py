"""The cards of the power sources, in the order in which a run tries them. Imports no implementation."""

from __future__ import annotations

from eflm_schemas import PowerSourceCard, Ref

POWER_SOURCES = (
    PowerSourceCard(
        name="nvml",
        summary="NVIDIA GPUs: memory, utilization, power, energy counter, clocks",
        source="https://docs.nvidia.com/deploy/nvml-api/",
        factory=Ref("eflm_plugins.power.nvml:nvml"),
        requires=("pynvml",),
        devices=("cuda",),
    ),
    PowerSourceCard(
        name="rapl",
        summary="the energy counters of Intel and AMD processors, package and DRAM",
        source="https://www.kernel.org/doc/html/latest/power/powercap/powercap.html",
        factory=Ref("eflm_plugins.power.rapl:rapl"),
        devices=("cpu",),
    ),
    PowerSourceCard(
        name="zeus",
        summary="Apple silicon, Jetson boards and NVIDIA GPUs, through zeus",
        source="https://ml.energy/zeus/",
        factory=Ref("eflm_plugins.power.zeus:zeus"),
        requires=("zeus",),
        extra="zeus",
    ),
)
