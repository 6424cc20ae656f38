"""The cards of the metrics of pictures. Imports no implementation."""

from __future__ import annotations

from eflm_schemas import MetricCard, MetricInfo, Ref

METRICS = (
    MetricCard(
        name="generation",
        summary="what generated pictures are worth: distance to real ones, and whether they show what was asked for",
        source="Heusel et al. 2017, arXiv 1706.08500, eq. 6 (Fréchet distance)",
        factory=Ref("eflm_vision.metrics.generation:generation"),
        modalities=("dit", "sd3.5", "wan2.1"),
        metrics=(
            MetricInfo(
                "FD", "feature distance", "lower", "Fréchet distance of generated to held-out real pictures"
            ),
            MetricInfo(
                "FD_floor", "feature distance", "neither", "the same of as many real training pictures"
            ),
            MetricInfo(
                "class_accuracy", "ratio", "higher", "generated pictures taken for what they should show"
            ),
            MetricInfo("class_accuracy_real", "ratio", "neither", "the same of held-out real pictures"),
            MetricInfo(
                "validation_loss",
                "mean squared error",
                "lower",
                "the training objective on held-out pictures",
            ),
            MetricInfo(
                "temporal_consistency",
                "ratio",
                "neither",
                "mean cosine of the judge's features of neighbouring frames of generated clips",
            ),
            MetricInfo("temporal_consistency_real", "ratio", "neither", "the same of held-out real clips"),
        ),
    ),
    MetricCard(
        name="denoising",
        summary="pictures per second, and where the time of a request goes: denoising steps, decoding",
        source="arXiv 2006.11239, algorithm 2",
        factory=Ref("eflm_vision.metrics.denoising:denoising"),
        modalities=("dit", "sd3.5", "wan2.1"),
        stages=("infer",),
        metrics=(
            MetricInfo("images_per_second", "images/s", "higher", "Σ pictures / Σ time, over whole requests"),
            MetricInfo(
                "denoising_step_time", "s", "lower", "one pass of the denoiser and the scheduler's update"
            ),
            MetricInfo("denoiser_time", "s", "lower", "all denoising steps of a request"),
            MetricInfo(
                "frames_per_second", "frames/s", "higher", "Σ frames of clips / Σ time, over whole requests"
            ),
            MetricInfo("text_encoder_time", "s", "lower", "prompts to embeddings, of a request"),
            MetricInfo("decoder_time", "s", "lower", "latents to pictures, of a request"),
        ),
    ),
    MetricCard(
        name="answering",
        summary="what a vision-language model's answers are worth, and the time it takes to see",
        source="Antol et al. 2015, arXiv 1505.00468, section 5 (open answers, here with one right answer each)",
        factory=Ref("eflm_vision.metrics.answering:answering"),
        modalities=("qwen2.5-vl",),
        metrics=(
            MetricInfo(
                "vqa_accuracy", "ratio", "higher", "greedy answers to held-out questions that are right"
            ),
            MetricInfo(
                "vqa_accuracy_floor", "ratio", "neither", "the same of the most frequent answer of training"
            ),
            MetricInfo("image_encoder_time", "s", "lower", "pixels to embeddings, of a request"),
        ),
    ),
)
