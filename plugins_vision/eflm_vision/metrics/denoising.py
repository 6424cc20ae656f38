"""Time of each part of an image or clip generation request, from the timed windows of the workload."""

from __future__ import annotations

from collections.abc import Mapping

from eflm.protocol.record import StageRecord
from eflm_plugins.metrics.figures import mean_of, rate_of, timed
from eflm_schemas import Metric

#: Window inside a request -> name and note of the metric that is the mean of its durations.
PARTS = {
    "encode_prompt": ("text_encoder_time", "per request"),
    "denoise_step": ("denoising_step_time", "each step, all requests"),
    "denoise": ("denoiser_time", "per request"),
    "decode_pictures": ("decoder_time", "per request"),
}


class Denoising:
    """Throughput and times of inference."""

    def collect(self, record: StageRecord) -> Mapping[str, Metric]:
        """Return images_per_second, frames_per_second for clips, and the mean time of each timed part in seconds.

        Nothing for a stage without denoising.
        """
        requests = timed(record)
        if not requests or not timed(record, "denoise"):
            return {}
        seconds = [window.seconds for window in requests]
        found = {"images_per_second": rate_of([window.samples for window in requests], seconds, "images/s")}
        frames = [window.tokens for window in timed(record, "decode_pictures")]
        if sum(frames) > sum(window.samples for window in requests):
            found["frames_per_second"] = rate_of(frames, seconds, "frames/s")
        for window, (name, note) in PARTS.items():
            parts = [part.seconds for part in timed(record, window)]
            if parts:
                found[name] = mean_of(parts, "s", "clock", note)
        return found


def denoising(_options: None) -> Denoising:
    """Create the collector. It has no options."""
    return Denoising()
