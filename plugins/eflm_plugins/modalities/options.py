"""The options of the modalities, as `--set llm.eval_tokens=65536` takes them. Torch-free: the listing reads them."""

from __future__ import annotations

from attrs import frozen

from eflm_schemas import option


@frozen(kw_only=True)
class LlmOptions:
    """How positions are encoded, and how held-out text is scored: the same for every technique."""

    positions: str = option(
        "rope",
        "positional encoding of a model that is trained from random weights",
        choices=("rope", "learned", "sinusoidal", "relative", "none"),
    )
    eval_tokens: int = option(32768, "held-out tokens that perplexity is evaluated on, at most", ge=64)
    eval_sequence_length: int = option(1024, "tokens of each held-out sequence", ge=8)
    eval_pairs: int = option(64, "held-out pairs that fine-tuning is evaluated on, at most", ge=1)
