"""The options, as `--set sink.window=64` takes them. Imports no torch, so that `eflm show` needs none."""

from attrs import frozen
from eflm_schemas import option


@frozen(kw_only=True)
class SinkOptions:
    """Attention sinks; the defaults are the 4 + 1020 cache of arXiv 2309.17453, table 6."""

    window: int = option(1020, "latest tokens that a query sees, itself included", ge=1)
    sinks: int = option(4, "first tokens of the sequence that every query sees as well", ge=0)
