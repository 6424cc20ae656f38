"""The data classes that all parts of eflm share: cards, options, run specs, results and geometries.

They are attrs classes. This package imports neither torch nor any other package of eflm.
"""

from eflm_schemas.cards import (
    KINDS,
    AdapterCard,
    AttentionCard,
    Backend,
    Card,
    Conflict,
    MetricCard,
    MetricInfo,
    ModalityCard,
    MoeRouterCard,
    Preset,
    QuantizerCard,
    Ref,
)
from eflm_schemas.geometry import AttentionGeometry, MlpGeometry
from eflm_schemas.options import OptionError, option
from eflm_schemas.result import Environment, Flag, Metric, PluginOrigin, RunResult, StageResult
from eflm_schemas.spec import STAGES, RunSpec, Techniques

__all__ = [
    "KINDS",
    "STAGES",
    "AdapterCard",
    "AttentionCard",
    "AttentionGeometry",
    "Backend",
    "Card",
    "Conflict",
    "Environment",
    "Flag",
    "Metric",
    "MetricCard",
    "MetricInfo",
    "MlpGeometry",
    "ModalityCard",
    "MoeRouterCard",
    "OptionError",
    "PluginOrigin",
    "Preset",
    "QuantizerCard",
    "Ref",
    "RunResult",
    "RunSpec",
    "StageResult",
    "Techniques",
    "option",
]
