"""Keeps sequences within what a model can attend to. For `llm`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve

from eflm.errors import ModelError
from eflm_schemas import Flag


def clip_to_context(stages: Mapping[str, Any], context: int | None, flags: list[Flag]) -> dict[str, Any]:
    """The stages' options with sequences no longer than `context` tokens (None: no limit); `flags` tell what was cut.

    Raises ModelError when the tokens to generate alone would not fit.
    """
    clipped = dict(stages)
    if context is None:
        return clipped
    for stage, options in stages.items():
        if stage == "infer":
            if options.new_tokens >= context:
                raise ModelError(
                    f"{options.new_tokens} new tokens were asked for, and the model has room for {context} in all;"
                    " set infer.new_tokens lower"
                )
            field, room = "prompt_tokens", context - options.new_tokens
        else:
            field, room = "sequence_length", context
        wanted = getattr(options, field)
        if wanted > room:
            clipped[stage] = evolve(options, **{field: room})
            detail = (
                f"{stage}.{field} was cut from {wanted} to {room}: the model has room for {context} tokens"
            )
            flags.append(Flag(name="context_clipped", detail=detail, stage=stage))
    return clipped
