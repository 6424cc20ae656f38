"""The metric cards of this package. Imports no implementation."""

from __future__ import annotations

from eflm_schemas import STAGES, MetricCard, MetricInfo, Ref

METRICS = (
    MetricCard(
        name="generation",
        summary="quality of generated images: Fréchet distance to real ones, and accuracy of their class",
        source="Heusel et al. 2017, arXiv 1706.08500, eq. 6 (Fréchet distance)",
        factory=Ref("eflm_vision.metrics.generation:generation"),
        metrics=(
            MetricInfo(
                "FD",
                "feature distance",
                "lower",
                "Fréchet distance of generated to held-out real images",
                label="FD · Fréchet distance",
                headline=STAGES,
            ),
            MetricInfo(
                "FD_floor",
                "feature distance",
                "neither",
                "Fréchet distance of as many real training images to held-out real images",
                label="FD of real images",
            ),
            MetricInfo(
                "class_accuracy",
                "ratio",
                "higher",
                "share of generated images that the judge classifies as their prompt or class",
                label="class accuracy",
                headline=("infer",),
            ),
            MetricInfo(
                "class_accuracy_real",
                "ratio",
                "neither",
                "the judge's accuracy on held-out real images",
                label="class accuracy of real images",
            ),
            MetricInfo(
                "validation_loss",
                "mean squared error",
                "lower",
                "training loss on held-out samples",
                label="validation loss",
                headline=("pretrain", "finetune"),
            ),
            MetricInfo(
                "temporal_consistency",
                "ratio",
                "neither",
                "mean cosine similarity of the judge's features of neighbouring frames of generated clips",
                label="temporal consistency",
            ),
            MetricInfo(
                "temporal_consistency_real",
                "ratio",
                "neither",
                "temporal_consistency of held-out real clips",
                label="temporal consistency of real clips",
            ),
        ),
    ),
    MetricCard(
        name="denoising",
        summary="images per second, and the time of each part of a request: prompt encoding, denoising, decoding",
        source="arXiv 2006.11239, algorithm 2",
        factory=Ref("eflm_vision.metrics.denoising:denoising"),
        stages=("infer",),
        metrics=(
            MetricInfo(
                "images_per_second",
                "images/s",
                "higher",
                "Σ images / Σ time, over whole requests",
                label="images per second",
                headline=("infer",),
            ),
            MetricInfo(
                "denoising_step_time",
                "s",
                "lower",
                "one denoising step: forward pass of the denoiser and update by the scheduler",
                label="time per denoising step",
                headline=("infer",),
            ),
            MetricInfo(
                "denoiser_time",
                "s",
                "lower",
                "all denoising steps of a request",
                label="denoiser time",
            ),
            MetricInfo(
                "frames_per_second",
                "frames/s",
                "higher",
                "Σ frames of clips / Σ time, over whole requests",
                label="frames per second",
            ),
            MetricInfo(
                "text_encoder_time",
                "s",
                "lower",
                "encoding the prompts of a request",
                label="text encoder time",
            ),
            MetricInfo(
                "decoder_time",
                "s",
                "lower",
                "decoding the latents of a request to pixels",
                label="decoder time",
            ),
        ),
    ),
    MetricCard(
        name="answering",
        summary="accuracy of a vision-language model's answers, and the time of its vision tower",
        source="Antol et al. 2015, arXiv 1505.00468, section 5 (open-ended, here with one reference answer each)",
        factory=Ref("eflm_vision.metrics.answering:answering"),
        metrics=(
            MetricInfo(
                "vqa_accuracy",
                "ratio",
                "higher",
                "share of held-out questions that are answered correctly",
                label="answer accuracy",
                headline=("finetune", "infer"),
            ),
            MetricInfo(
                "vqa_accuracy_floor",
                "ratio",
                "neither",
                "accuracy of always giving the most frequent answer of training",
                label="accuracy of a constant answer",
            ),
            MetricInfo(
                "image_encoder_time",
                "s",
                "lower",
                "encoding the images and clips of a request to embeddings",
                label="image encoder time",
                headline=("infer",),
            ),
        ),
    ),
)
