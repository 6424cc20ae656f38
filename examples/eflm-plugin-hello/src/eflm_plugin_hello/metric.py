"""A metric computed from the timed windows of a stage. Runs in the parent process, so it imports no torch."""

from statistics import mean, stdev

from eflm_schemas import Metric


class Steadiness:
    """The coefficient of variation of the time per step or request."""

    def __init__(self, options):
        pass  # the card names no config class, so `options` is None

    def collect(self, record):
        """Return AL_cv of one stage. `record` is an `eflm.protocol.record.StageRecord`."""
        seconds = [window.seconds for window in record.measured()]
        if len(seconds) < 2:
            reason = f"AL_cv needs at least 2 measured {record.unit_of_work}s, but there are {len(seconds)}"
            return {"AL_cv": Metric.unavailable("ratio", reason)}
        value = stdev(seconds) / mean(seconds)
        return {"AL_cv": Metric(value=value, unit="ratio", provenance="computed", n=len(seconds))}
