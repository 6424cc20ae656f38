"""The manifest of the built-in plugins: each hook returns the cards of one folder. Imports no implementation."""

from eflm.registry.hookspecs import hookimpl
from eflm_plugins.adapters.cards import ADAPTERS
from eflm_plugins.attention.cards import ATTENTION
from eflm_plugins.doctor.cards import COMMANDS
from eflm_plugins.metrics.cards import METRICS
from eflm_plugins.modalities.cards import MODALITIES
from eflm_plugins.moe.cards import ROUTERS
from eflm_plugins.power.cards import POWER_SOURCES
from eflm_plugins.quantizers.cards import QUANTIZERS


@hookimpl
def eflm_attention():
    return ATTENTION


@hookimpl
def eflm_moe_router():
    return ROUTERS


@hookimpl
def eflm_adapter():
    return ADAPTERS


@hookimpl
def eflm_quantizer():
    return QUANTIZERS


@hookimpl
def eflm_modality_loader():
    return MODALITIES


@hookimpl
def eflm_metric_collector():
    return METRICS


@hookimpl
def eflm_power_sources():
    return POWER_SOURCES


@hookimpl
def eflm_commands():
    return COMMANDS
