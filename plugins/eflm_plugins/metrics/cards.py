"""The cards of the metrics, in the order in which results show them. Read by the registry; imports no collector."""

from __future__ import annotations

from eflm_schemas import MetricCard, MetricInfo, Ref

PAPER = "EfficientLLM, arXiv:2505.13840, section 3 (evaluation metrics)"

METRICS = (
    MetricCard(
        name="memory",
        summary="AMU: memory in use, averaged over the time of the measured work, and its peak",
        source=PAPER,
        factory=Ref("eflm_plugins.metrics.memory:memory"),
        metrics=(
            MetricInfo("AMU", "GB", "lower", "(1/T) ∫ memory_used(t) dt over the measured windows"),
            MetricInfo("AMU_fraction", "ratio", "lower", "AMU over the memory of the device or machine"),
            MetricInfo(
                "peak_memory",
                "GB",
                "lower",
                "the most during the measured work: the kernel's mark, or a sample",
            ),
            MetricInfo("unique_memory", "GB", "lower", "resident memory that no other process shares"),
            MetricInfo(
                "peak_allocated", "GB", "lower", "most bytes that torch's CUDA allocator had given out"
            ),
            MetricInfo("peak_reserved", "GB", "lower", "most bytes that torch's CUDA allocator had taken"),
            MetricInfo("memory_weights", "GB", "lower", "bytes of parameters and buffers as stored"),
            MetricInfo("memory_gradients", "GB", "lower", "bytes of the gradients after a backward pass"),
            MetricInfo("memory_optimizer", "GB", "lower", "bytes of the optimizer's states"),
            MetricInfo(
                "memory_activations", "GB", "lower", "bytes that a forward pass keeps for its backward"
            ),
            MetricInfo("memory_cache", "GB", "lower", "bytes of the cache at the end of a request"),
            MetricInfo("memory_other", "GB", "neither", "peak_memory less the bytes of these kinds"),
        ),
    ),
    MetricCard(
        name="compute",
        summary="PCU: achieved floating-point operations per second, over the hardware's peak",
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
                "share of time in which a kernel ran on the GPU (NVML), or of the cores in use on a CPU run",
            ),
        ),
    ),
    MetricCard(
        name="latency",
        summary="AL: seconds per training step or inference request, and those of its parts",
        source=PAPER,
        factory=Ref("eflm_plugins.metrics.latency:latency"),
        metrics=(
            MetricInfo("AL", "s", "lower", "mean time of a step or request"),
            MetricInfo("TTFT", "s", "lower", "time to first token: mean time of the prefill"),
            MetricInfo(
                "TPOT", "s", "lower", "time per output token after the first: decode time over its tokens"
            ),
            MetricInfo("ITL", "s", "lower", "inter-token latency: the time of each token after the first"),
            MetricInfo("forward_time", "s", "lower", "mean time of a step's forward pass"),
            MetricInfo("backward_time", "s", "lower", "mean time of a step's backward pass"),
            MetricInfo("optimizer_time", "s", "lower", "mean time of a step's clipping and update"),
            MetricInfo("data_wait", "s", "lower", "mean time for which a step waited for its batch"),
            MetricInfo(
                "communication_time",
                "s",
                "lower",
                "mean time of a step in which its gradients were under way",
            ),
            MetricInfo(
                "communication_exposed",
                "s",
                "lower",
                "the part of it in which nothing was left but to wait for them",
            ),
        ),
    ),
    MetricCard(
        name="throughput",
        summary="AT: TT of pretraining, ST of fine-tuning, IT of inference, and the plain rates",
        source=PAPER,
        factory=Ref("eflm_plugins.metrics.throughput:throughput"),
        metrics=(
            MetricInfo("TT", "tokens/param/s", "higher", "Σ (tokens / parameters) / Σ time"),
            MetricInfo("ST", "samples/param/s", "higher", "Σ (samples / parameters) / Σ time"),
            MetricInfo("IT", "tokens/s", "higher", "Σ generated tokens / Σ time"),
            MetricInfo(
                "tokens_per_second", "tokens/s", "higher", "Σ tokens / Σ time; for inference those generated"
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
        summary="AEC: mean power of the measured work, and its energy",
        source=PAPER,
        factory=Ref("eflm_plugins.metrics.energy:energy"),
        metrics=(
            MetricInfo("AEC", "W", "lower", "(1/T) ∫ P(t) dt over the measured windows"),
            MetricInfo("energy", "J", "lower", "∫ P(t) dt over the measured windows"),
            MetricInfo(
                "energy_per_token", "J/token", "lower", "energy over the tokens of the measured windows"
            ),
            MetricInfo("energy_per_sample", "J/sample", "lower", "energy over the samples of the windows"),
            MetricInfo(
                "prefill_energy_per_token",
                "J/token",
                "lower",
                "energy of the prefill over the prompts' tokens",
            ),
            MetricInfo(
                "decode_energy_per_token",
                "J/token",
                "lower",
                "energy of the decode over the tokens after the first",
            ),
            MetricInfo(
                "carbon", "gCO2e", "lower", "energy times the yearly mean intensity of a region's electricity"
            ),
        ),
    ),
    MetricCard(
        name="compression",
        summary="MCR: how much smaller quantization made the model, times the quality that it kept",
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
            MetricInfo("compression", "ratio", "higher", "bytes before quantization over bytes after"),
        ),
    ),
    MetricCard(
        name="perplexity",
        summary="PPL on held-out text after the stage, and a unigram model's on the same text",
        source="Jelinek et al. 1977, Perplexity: a measure of the difficulty of speech recognition tasks",
        factory=Ref("eflm_plugins.metrics.perplexity:perplexity"),
        modalities=("llm", "qwen2.5-vl"),
        metrics=(
            MetricInfo(
                "PPL", "perplexity per token", "lower", "exp of the mean negative log-likelihood of a token"
            ),
            MetricInfo(
                "PPL_floor",
                "perplexity per token",
                "neither",
                "the same of a unigram model: knowing no order",
            ),
        ),
    ),
    MetricCard(
        name="routing",
        summary="how evenly and how decidedly a mixture of experts used its experts",
        source="arXiv 2101.03961, section 2.2 (load); arXiv 2202.09368, section 1 (dropped tokens)",
        factory=Ref("eflm_plugins.metrics.routing:routing"),
        metrics=(
            MetricInfo(
                "expert_load_max", "ratio", "lower", "tokens of the busiest expert over the experts' mean"
            ),
            MetricInfo(
                "expert_load_cv",
                "ratio",
                "lower",
                "standard deviation of the experts' tokens over their mean",
            ),
            MetricInfo(
                "routing_entropy",
                "ratio",
                "neither",
                "mean over tokens of -Σ p ln p of the router's probabilities, over ln E",
            ),
            MetricInfo("dropped_tokens", "ratio", "lower", "share of tokens that no routed expert took"),
        ),
    ),
)
