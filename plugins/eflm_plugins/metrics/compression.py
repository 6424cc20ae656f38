"""MCR, model compression rate: (size_orig / size_comp) × (perf_comp / perf_orig) (EfficientLLM, arXiv 2505.13840).

Sizes are bytes as stored; performance is the first of PERFORMANCE that the workload evaluates. Both are of the same
weights right before and right after quantization, so that what fine-tuning changed is not credited to the quantizer.
"""

from __future__ import annotations

from collections.abc import Mapping

from eflm.protocol.record import Compression, StageRecord
from eflm_schemas import Metric

#: Qualities that performance can be, and the power of theirs that is: 1 where more is better, -1 where less is.
PERFORMANCE = {"PPL": -1, "FD": -1}


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
    for name, power in PERFORMANCE.items():
        before, after = (quality.get(name) for quality in (found.original_quality, found.quality))
        if before is not None and after is not None and before.value and after.value:
            kept = (after.value / before.value) ** power
            note = (
                f"{size:.3g}× smaller; {name} {before.value:.4g} to {after.value:.4g} by quantization alone"
            )
            return Metric(value=size * kept, unit="ratio", provenance="computed", note=note)
    reason = f"none of {', '.join(PERFORMANCE)} was evaluated before and after quantization"
    return Metric.unavailable("ratio", reason)


def compression(_options: None) -> CompressionRate:
    return CompressionRate()
