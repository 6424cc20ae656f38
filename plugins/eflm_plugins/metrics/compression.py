"""MCR, model compression rate: (size_orig / size_comp) × (perf_comp / perf_orig) (EfficientLLM, arXiv 2505.13840).

Sizes are bytes as stored; performance is 1 / perplexity. Both are of the same weights right before and right after
quantization, so that what fine-tuning changed is not credited to the quantizer.
"""

from __future__ import annotations

from collections.abc import Mapping

from eflm.measure.record import Compression, StageRecord
from eflm_schemas import Metric


class CompressionRate:
    """How much smaller quantization made the model, discounted by what it cost in quality."""

    def collect(self, record: StageRecord) -> Mapping[str, Metric]:
        """MCR of a run that infers; compression is the plain ratio of sizes."""
        if record.stage != "infer":
            return {}
        found = record.compression
        if found is None:
            note = "nothing was quantized: the model is the original"
            return {
                "MCR": Metric(value=1.0, unit="ratio", provenance="computed", note=note),
                "compression": Metric(value=1.0, unit="ratio", provenance="counted", note=note),
            }
        if not found.original_bytes or not found.bytes:
            reason = found.reason or "the model's size before quantization is not known"
            return {
                "MCR": Metric.unavailable("ratio", reason),
                "compression": Metric.unavailable("ratio", reason),
            }
        size = found.original_bytes / found.bytes
        note = f"{found.original_bytes / 1e6:.2f} MB to {found.bytes / 1e6:.2f} MB"
        return {
            "MCR": _rate(size, found),
            "compression": Metric(value=size, unit="ratio", provenance="counted", note=note),
        }


def _rate(size: float, found: Compression) -> Metric:
    before, after = (quality.get("PPL") for quality in (found.original_quality, found.quality))
    if before is None or after is None or not before.value or not after.value:
        return Metric.unavailable("ratio", "no perplexity was evaluated before and after quantization")
    note = f"{size:.3g}× smaller; PPL {before.value:.4g} to {after.value:.4g} by quantization alone"
    return Metric(value=size * before.value / after.value, unit="ratio", provenance="computed", note=note)


def compression(_options: None) -> CompressionRate:
    return CompressionRate()
