"""Options of the modalities, as in `--set llm.eval_tokens=65536`. Imports no torch, because `list-plugins` reads it."""

from __future__ import annotations

from attrs import frozen

from eflm_schemas import option


@frozen(kw_only=True)
class LlmOptions:
    """Options of llm: the positional encoding and the evaluation on held-out text, equal for all techniques."""

    positions: str = option(
        "rope",
        "positional encoding; all except rope need a model trained from random weights",
        choices=("rope", "learned", "sinusoidal", "relative", "none"),
    )
    eval_tokens: int = option(32768, "maximum number of held-out tokens for the perplexity", ge=64)
    eval_sequence_length: int = option(1024, "number of tokens in each held-out sequence", ge=8)
    eval_pairs: int = option(
        64, "maximum number of held-out pairs for the perplexity after fine-tuning", ge=1
    )
