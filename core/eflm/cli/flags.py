"""Prints the flags of results, with the stages or columns that have them and with advice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from eflm_schemas import Flag

if TYPE_CHECKING:
    from rich.console import Console

_INDENT = 2

#: Advice for users by the name of a flag. Other flags contain the advice in their detail.
ADVICE = {
    "busy_cores": "Stop other programs and run again.",
    "busy_machine": "Run again when the machine is idle.",
    "clock_change": "Measure longer, or lock the clocks of the GPU.",
    "data_without_captions": "Give images with captions (--data).",
    "data_without_pairs": "Give pairs of prompt and completion (--data).",
    "data_without_text": "Give plain text (--data).",
    "device_fallback": "Name the device that you want (--device).",
    "device_lost": "Check the GPU and its driver, and run again.",
    "event_lost": "Run again; metrics of this run may be missing.",
    "isolation_fallback": "Compare memory only with runs that have this flag.",
    "metric_failed": "Use the other metrics, and report this to the author of the plugin.",
    "metric_left_out": "See eflm list-plugins metric.",
    "not_isolated": "Leave out --isolation none to measure.",
    "observer_failed": "The measurements are complete; check the observer.",
    "power_limited": "Compare only with runs at the same power limit.",
    "power_source_failed": "See eflm doctor.",
    "sampling_fault": "Run again; sampled metrics may be incomplete.",
    "shared_device": "Stop other programs on the GPU and run again.",
    "swapping": "Use a smaller model or batch, or more memory.",
    "throttled": "Let the device cool down and run again.",
    "tokenizer_trained": "Do not compare this perplexity with other models.",
}


@frozen
class Located:
    """A flag with the stage or the column of a sweep in which it occurred, or both."""

    flag: Flag
    where: tuple[str, ...] = ()


def print_flags(flags: Sequence[Flag], console: Console, whose: str = "") -> None:
    """Print every flag with its detail. Print nothing if there is none."""
    lines = [(_name(flag.name, [flag.stage or ""]), _text(flag)) for flag in flags]
    _print(lines, console, f"Flags of {whose}" if whose else "Flags")


def print_flag_summary(found: Iterable[Located], console: Console) -> None:
    """Print one line for all flags with the same name and advice. If the line does not fit, print only the advice."""
    groups: dict[tuple[str, str], list[Located]] = {}
    for located in found:
        flag = located.flag
        groups.setdefault((flag.name, "" if flag.name in ADVICE else flag.detail), []).append(located)
    lines = []
    for (name, _), group in groups.items():
        label = _name(name, [", ".join(located.where) for located in group])
        text = _text(group[0].flag, group[0].where if len({one.flag.detail for one in group}) > 1 else ())
        if _INDENT + len(label) + len(text) > console.width:
            text = ADVICE.get(name, text)
        lines.append((label, text))
    _print(lines, console, "Flags")


def _name(name: str, places: Iterable[str]) -> str:
    where = "; ".join(dict.fromkeys(place for place in places if place))
    return f"{name} ({where}): " if where else f"{name}: "


def _text(flag: Flag, where: Sequence[str] = ()) -> str:
    detail = flag.detail.rstrip(". ") + (f" ({', '.join(where)})" if where else "")
    return f"{detail}. {ADVICE.get(flag.name, '')}".strip()


def _print(lines: Sequence[tuple[str, str]], console: Console, heading: str) -> None:
    from rich.padding import Padding
    from rich.text import Text

    if not lines:
        return
    console.print()
    console.print(Text(heading, style="bold yellow"))
    for label, text in lines:
        console.print(Padding(Text.assemble((label, "bold yellow"), text), (0, 0, 0, _INDENT), expand=False))
