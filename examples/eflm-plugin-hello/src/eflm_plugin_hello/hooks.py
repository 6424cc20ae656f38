"""The hooks of this package. eflm imports this module to list plugins, so it imports no implementation."""

from eflm import hookimpl
from eflm_schemas import AttentionCard, CommandCard, MetricCard, MetricInfo, ObserverCard, Ref


@hookimpl
def eflm_attention():
    return [
        AttentionCard(
            name="sink",
            summary="sliding-window attention that also sees the first tokens; its cache has a limited size",
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
            summary="coefficient of variation of the time per step or request",
            source="https://en.wikipedia.org/wiki/Coefficient_of_variation",
            factory=Ref("eflm_plugin_hello.metric:Steadiness"),
            metrics=(
                MetricInfo(
                    name="AL_cv",
                    unit="ratio",
                    better="lower",
                    definition="standard deviation / mean of the time per step or request",
                    label="coefficient of variation of AL",
                ),
            ),
        )
    ]


@hookimpl
def eflm_commands():
    return [
        CommandCard(
            name="lowest",
            summary="Print the results with the lowest value of a metric.",
            factory=Ref("eflm_plugin_hello.command:command"),
        )
    ]


@hookimpl
def eflm_observers():
    return [
        ObserverCard(
            name="stage-log",
            summary="writes a line of JSON for every stage to the file that HELLO_STAGE_LOG names",
            factory=Ref("eflm_plugin_hello.observer:StageLog"),
        )
    ]
