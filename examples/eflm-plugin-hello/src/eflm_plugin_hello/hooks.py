"""The manifest: what this package offers. eflm imports it to list plugins, so it imports no implementation."""

from eflm import hookimpl
from eflm_schemas import AttentionCard, MetricCard, MetricInfo, Ref


@hookimpl
def eflm_attention():
    return [
        AttentionCard(
            name="sink",
            summary="Sliding-window attention that also keeps the first tokens: a cache of constant size.",
            source="arXiv 2309.17453, section 3.2",
            factory=Ref("eflm_plugin_hello.attention:SinkAttention"),
            naive=Ref("eflm_plugin_hello.naive:naive"),
            config=Ref("eflm_plugin_hello.options:SinkOptions"),
            converts=True,
        )
    ]


@hookimpl
def eflm_metric_collector():
    return [
        MetricCard(
            name="steadiness",
            summary="How much the time of a step or request varies from one to the next.",
            source="https://en.wikipedia.org/wiki/Coefficient_of_variation",
            factory=Ref("eflm_plugin_hello.metric:Steadiness"),
            metrics=(
                MetricInfo(
                    name="AL_cv",
                    unit="ratio",
                    better="lower",
                    definition="standard deviation of the time of a step or request, divided by its mean",
                ),
            ),
        )
    ]
