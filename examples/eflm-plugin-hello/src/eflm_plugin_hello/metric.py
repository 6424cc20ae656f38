"""A metric worked out from the timed windows of a stage. Runs in the watching process, so it imports no torch."""

from statistics import mean, stdev

from eflm_schemas import Metric


class Steadiness:
    """The coefficient of variation of a step's or request's time."""

    def __init__(self, options):
        pass  # the card names no config class, so `options` is None

    def collect(self, record):
        """AL_cv of one stage, from its `eflm.protocol.record.StageRecord`."""
        seconds = [window.seconds for window in record.measured()]
        if len(seconds) < 2:
            reason = f"a spread takes two {record.unit_of_work}s at least, and {len(seconds)} were measured"
            return {"AL_cv": Metric.unavailable("ratio", reason)}
        value = stdev(seconds) / mean(seconds)
        return {"AL_cv": Metric(value=value, unit="ratio", provenance="computed", n=len(seconds))}
