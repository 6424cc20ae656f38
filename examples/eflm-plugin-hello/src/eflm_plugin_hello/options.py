"""The options, such as `--set sink.window=64`. Imports no torch, so that `eflm show` does not need it."""

from attrs import frozen
from eflm_schemas import option


@frozen(kw_only=True)
class SinkOptions:
    """Attention sinks; the defaults are the cache of 4 + 1020 tokens in arXiv 2309.17453, table 6."""

    window: int = option(1020, "number of latest tokens that a query sees, including itself", ge=1)
    sinks: int = option(4, "number of first tokens of the sequence that every query also sees", ge=0)
