"""The card of `eflm doctor`."""

from __future__ import annotations

from eflm_schemas import CommandCard, Ref

COMMANDS = (
    CommandCard(
        name="doctor",
        summary="Check what this machine can measure, and how well.",
        factory=Ref("eflm_plugins.doctor.command:command"),
        requires=("torch",),
        extra="llm",
    ),
)
