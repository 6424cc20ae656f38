"""The cards of the metrics, in the order in which results show them. This module imports no collector."""

from __future__ import annotations

from eflm_schemas import MetricCard, MetricInfo, Ref

PAPER = "EfficientLLM, arXiv:2505.13840, section 3 (evaluation metrics)"

METRICS = (
    MetricCard(
        name="memory",
        summary="AMU: average memory usage during the measured work, and its peak",
        source=PAPER,
        factory=Ref("eflm_plugins.metrics.memory:memory"),
        metrics=(
            MetricInfo("AMU", "GB", "lower", "(1/T) ∫ memory_used(t) dt over the measured windows"),
            MetricInfo("AMU_fraction", "ratio", "lower", "AMU over the memory of the device or machine"),
            MetricInfo(
                "peak_memory",
                "GB",
                "lower",
                "maximum during the measured work: the kernel's peak counter, or the largest sample",
            ),
            MetricInfo(
                "unique_memory", "GB", "lower", "resident memory that is not shared with another process"
            ),
            MetricInfo("peak_allocated", "GB", "lower", "maximum bytes allocated by torch's CUDA allocator"),
            MetricInfo("peak_reserved", "GB", "lower", "maximum bytes reserved by torch's CUDA allocator"),
            MetricInfo("memory_weights", "GB", "lower", "bytes of parameters and buffers as stored"),
            MetricInfo("memory_gradients", "GB", "lower", "bytes of the gradients after a backward pass"),
            MetricInfo("memory_optimizer", "GB", "lower", "bytes of the optimizer states"),
            MetricInfo(
                "memory_activations", "GB", "lower", "bytes that a forward pass stores for its backward pass"
            ),
            MetricInfo("memory_cache", "GB", "lower", "bytes of the cache at the end of a request"),
            MetricInfo("memory_other", "GB", "neither", "peak_memory minus the bytes of the kinds above"),
        ),
    ),
    MetricCard(
        name="compute",
        summary="PCU: achieved floating-point operations per second divided by the hardware's peak (MFU)",
        source=PAPER,
        factory=Ref("eflm_plugins.metrics.compute:compute"),
        metrics=(
            MetricInfo(
                "PCU", "ratio", "higher", "Σ counted FLOPs / (Σ time × peak FLOP/s at the stage's dtype)"
            ),
            MetricInfo("FLOPS", "FLOP/s", "higher", "Σ counted FLOPs / Σ time; a multiply-add counts as two"),
            MetricInfo(
                "utilization",
                "ratio",
                "neither",
                "share of the time with a running kernel (NVML) on a GPU, share of all cores in use on a CPU",
            ),
        ),
    ),
    MetricCard(
        name="latency",
        summary="AL: time per training step or inference request, and the time of its parts",
        source=PAPER,
        factory=Ref("eflm_plugins.metrics.latency:latency"),
        metrics=(
            MetricInfo("AL", "s", "lower", "mean time of a step or request"),
            MetricInfo("TTFT", "s", "lower", "time to first token: mean time of the prefill"),
            MetricInfo("TPOT", "s", "lower", "time per output token after the first: decode time / tokens"),
            MetricInfo("ITL", "s", "lower", "inter-token latency: mean time between consecutive tokens"),
            MetricInfo("forward_time", "s", "lower", "mean time of a step's forward pass"),
            MetricInfo("backward_time", "s", "lower", "mean time of a step's backward pass"),
            MetricInfo("optimizer_time", "s", "lower", "mean time of a step's gradient clipping and update"),
            MetricInfo("data_wait", "s", "lower", "mean time that a step waits for its batch"),
            MetricInfo(
                "communication_time",
                "s",
                "lower",
                "mean time per step during which gradients are exchanged between processes",
            ),
            MetricInfo(
                "communication_exposed",
                "s",
                "lower",
                "part of communication_time that does not overlap with computation",
            ),
        ),
    ),
    MetricCard(
        name="throughput",
        summary="AT: TT for pretraining, ST for fine-tuning, IT for inference, and tokens and samples per second",
        source=PAPER,
        factory=Ref("eflm_plugins.metrics.throughput:throughput"),
        metrics=(
            MetricInfo("TT", "tokens/param/s", "higher", "Σ (tokens / parameters) / Σ time"),
            MetricInfo("ST", "samples/param/s", "higher", "Σ (samples / parameters) / Σ time"),
            MetricInfo("IT", "tokens/s", "higher", "Σ generated tokens / Σ time"),
            MetricInfo(
                "tokens_per_second",
                "tokens/s",
                "higher",
                "Σ tokens / Σ time; in inference only generated tokens",
            ),
            MetricInfo("samples_per_second", "samples/s", "higher", "Σ samples / Σ time"),
            MetricInfo("prefill_tokens_per_second", "tokens/s", "higher", "Σ prompt tokens / Σ prefill time"),
            MetricInfo(
                "decode_tokens_per_second", "tokens/s", "higher", "Σ tokens after the first / Σ decode time"
            ),
        ),
    ),
    MetricCard(
        name="energy",
        summary="AEC: average power during the measured work, and its energy",
        source=PAPER,
        factory=Ref("eflm_plugins.metrics.energy:energy"),
        metrics=(
            MetricInfo("AEC", "W", "lower", "(1/T) ∫ P(t) dt over the measured windows"),
            MetricInfo("energy", "J", "lower", "∫ P(t) dt over the measured windows"),
            MetricInfo("energy_per_token", "J/token", "lower", "energy / tokens of the measured windows"),
            MetricInfo("energy_per_sample", "J/sample", "lower", "energy / samples of the measured windows"),
            MetricInfo(
                "prefill_energy_per_token",
                "J/token",
                "lower",
                "energy of the prefill / prompt tokens",
            ),
            MetricInfo(
                "decode_energy_per_token",
                "J/token",
                "lower",
                "energy of the decode / tokens after the first",
            ),
            MetricInfo(
                "carbon",
                "gCO2e",
                "lower",
                "energy × mean carbon intensity of a region's electricity in a year",
            ),
        ),
    ),
    MetricCard(
        name="compression",
        summary="MCR: size reduction by quantization, multiplied by the fraction of quality that remains",
        source=PAPER,
        factory=Ref("eflm_plugins.metrics.compression:compression"),
        stages=("infer",),
        metrics=(
            MetricInfo(
                "MCR",
                "ratio",
                "higher",
                "(size_orig / size_comp) × (perf_comp / perf_orig), perf = 1 / PPL or 1 / FD",
            ),
            MetricInfo("compression", "ratio", "higher", "bytes before quantization / bytes after"),
        ),
    ),
    MetricCard(
        name="perplexity",
        summary="PPL on held-out text after the stage, and the PPL of a unigram model on the same text",
        source="Jelinek et al. 1977, Perplexity: a measure of the difficulty of speech recognition tasks",
        factory=Ref("eflm_plugins.metrics.perplexity:perplexity"),
        metrics=(
            MetricInfo(
                "PPL", "perplexity per token", "lower", "exp of the mean negative log-likelihood per token"
            ),
            MetricInfo(
                "PPL_floor",
                "perplexity per token",
                "neither",
                "PPL of a unigram model, which knows token frequencies only",
            ),
        ),
    ),
    MetricCard(
        name="routing",
        summary="load balance, entropy and dropped tokens of a mixture of experts",
        source="arXiv 2101.03961, section 2.2 (load); arXiv 2202.09368, section 1 (dropped tokens)",
        factory=Ref("eflm_plugins.metrics.routing:routing"),
        metrics=(
            MetricInfo(
                "expert_load_max", "ratio", "lower", "tokens of the most used expert / mean tokens per expert"
            ),
            MetricInfo(
                "expert_load_cv",
                "ratio",
                "lower",
                "standard deviation / mean of the tokens per expert",
            ),
            MetricInfo(
                "routing_entropy",
                "ratio",
                "neither",
                "mean over tokens of -Σ p ln p / ln E, with the router's probabilities p",
            ),
            MetricInfo("dropped_tokens", "ratio", "lower", "share of tokens that no routed expert processed"),
        ),
    ),
)
