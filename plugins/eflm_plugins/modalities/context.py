"""Limits the sequence lengths of all stages to the context length of the model. Used by the modality `llm`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve

from eflm.errors import ModelError
from eflm.planning.stage_options import LEAST_NEW_TOKENS
from eflm_schemas import Flag


def clip_to_context(stages: Mapping[str, Any], context: int | None, flags: list[Flag]) -> dict[str, Any]:
    """Return the stages' options with sequences of at most `context` tokens (None: no limit).

    Appends a flag to `flags` for every reduced option. Raises ModelError if a prompt of one token and the new tokens do
    not fit into the context.
    """
    clipped = dict(stages)
    if context is None:
        return clipped
    for stage, options in stages.items():
        if stage == "infer":
            if options.new_tokens >= context:
                fix = (
                    f"set infer.new_tokens to {context - 1} or less"
                    if context > LEAST_NEW_TOKENS
                    else f"choose a model with a context of {LEAST_NEW_TOKENS + 1} tokens or more"
                )
                raise ModelError(
                    f"infer.new_tokens is {options.new_tokens}, but prompt and new tokens together must fit into the"
                    f" model's context of {context} tokens; {fix}"
                )
            field, limit = "prompt_tokens", context - options.new_tokens
        else:
            field, limit = "sequence_length", context
        requested = getattr(options, field)
        if requested > limit:
            clipped[stage] = evolve(options, **{field: limit})
            detail = f"{stage}.{field} was reduced from {requested} to {limit}: the model's context is {context} tokens"
            flags.append(Flag(name="context_clipped", detail=detail, stage=stage))
    return clipped
