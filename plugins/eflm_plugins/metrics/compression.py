"""MCR, model compression rate: (size_orig / size_comp) × (perf_comp / perf_orig) (EfficientLLM, arXiv 2505.13840).

Sizes are bytes as stored. Performance is the first quality of PERFORMANCE that the workload evaluates. Both are taken
directly before and directly after quantization, so changes by fine-tuning do not count.
"""

from __future__ import annotations

from collections.abc import Mapping

from eflm.protocol.record import Compression, StageRecord
from eflm_schemas import Metric

#: Qualities that can measure performance, and their exponent: 1 if higher is better, -1 if lower is better.
PERFORMANCE = {"PPL": -1, "FD": -1}


class CompressionRate:
    """The size reduction by quantization, multiplied by the fraction of quality that remains."""

    def collect(self, record: StageRecord) -> Mapping[str, Metric]:
        """Return MCR and compression (the ratio of sizes) of the infer stage; nothing for other stages."""
        if record.stage != "infer":
            return {}
        found = record.compression
        if found is None:
            note = "the model was not quantized"
            return {
                "MCR": Metric(value=1.0, unit="ratio", provenance="computed", note=note),
                "compression": Metric(value=1.0, unit="ratio", provenance="counted", note=note),
            }
        if not found.original_bytes or not found.bytes:
            reason = found.reason or "the model size before quantization is unknown"
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
            note = f"{size:.3g}× smaller; quantization changed {name} from {before.value:.4g} to {after.value:.4g}"
            return Metric(value=size * kept, unit="ratio", provenance="computed", note=note)
    reason = f"no quality ({', '.join(PERFORMANCE)}) was evaluated before and after quantization"
    return Metric.unavailable("ratio", reason)


def compression(_options: None) -> CompressionRate:
    return CompressionRate()
