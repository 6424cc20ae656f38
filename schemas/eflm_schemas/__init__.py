"""The data classes that all parts of eflm share: cards, options, run specs, results and geometries.

They are attrs classes. This package imports neither torch nor any other package of eflm.
"""

from eflm_schemas.cards import (
    AdapterCard,
    AttentionCard,
    Backend,
    Card,
    CommandCard,
    Conflict,
    MetricCard,
    MetricInfo,
    ModalityCard,
    MoeRouterCard,
    ObserverCard,
    PowerSourceCard,
    Preset,
    QuantizerCard,
    Ref,
    TechniqueCard,
)
from eflm_schemas.geometry import AttentionGeometry, MlpGeometry
from eflm_schemas.options import OptionError, option
from eflm_schemas.result import (
    Environment,
    Flag,
    Metric,
    PluginOrigin,
    RunResult,
    StageDocument,
    StageResult,
)
from eflm_schemas.spec import STAGES, RunSpec

__all__ = [
    "STAGES",
    "AdapterCard",
    "AttentionCard",
    "AttentionGeometry",
    "Backend",
    "Card",
    "CommandCard",
    "Conflict",
    "Environment",
    "Flag",
    "Metric",
    "MetricCard",
    "MetricInfo",
    "MlpGeometry",
    "ModalityCard",
    "MoeRouterCard",
    "ObserverCard",
    "OptionError",
    "PluginOrigin",
    "PowerSourceCard",
    "Preset",
    "QuantizerCard",
    "Ref",
    "RunResult",
    "RunSpec",
    "StageDocument",
    "StageResult",
    "TechniqueCard",
    "option",
]
