"""Prints a comparison: the answer, the sides, a table for each stage, and the reasons.

A table that is wider than the terminal is printed with one line per side, so that no number is cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import define, field

from eflm.cli.console import table_of
from eflm.cli.flags import print_flags
from eflm_analysis.compare.headline import headline
from eflm_analysis.compare.texts import heading, written
from eflm_analysis.labels import BASELINE
from eflm_schemas import MetricInfo
from eflm_schemas.comparison import Comparison, Difference

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

STYLES = {"better": "green", "worse": "red", "tie": "", "differs": "cyan", "unknown": "dim"}

Metrics = Mapping[str, tuple[Difference, ...]]


def render(
    comparison: Comparison, infos: Mapping[str, MetricInfo], console: Console, *, details: bool = False
) -> None:
    """Print a comparison. Without `details`, only the headline metrics of each stage are printed."""
    from rich.text import Text

    for sentence in comparison.answer:
        console.print(Text(sentence, style="bold"))
    console.print()
    for side in comparison.sides:
        role = ", the baseline" if side is comparison.sides[0] and side.label != BASELINE else ""
        console.print(Text(f"{heading(side)}{role}"))
    for caveat in comparison.caveats:
        console.print(Text(f"  {caveat}", style="yellow"))
    hidden = 0
    for stage, metrics in comparison.stages.items():
        chosen = metrics if details else headline(stage, metrics, infos)
        hidden += len(metrics) - len(chosen)
        if chosen:
            _Stage(stage, chosen, [side.label for side in comparison.sides], infos).print(console)
        for reason in comparison.reasons.get(stage, ()):
            console.print(Text(f"  {reason}"))
    if hidden:
        console.print(Text(f"\n{hidden} more metric{'s' if hidden > 1 else ''}: --details", style="dim"))
    for side in comparison.sides:
        print_flags(side.flags, console, f"the figures of {side.label}")
    console.print()


@define
class _Stage:
    """The metrics of one stage. `bases` numbers what the verdicts are based on, as footnotes."""

    name: str
    metrics: Metrics
    labels: Sequence[str]
    infos: Mapping[str, MetricInfo]
    bases: dict[str, int] = field(factory=dict)

    def print(self, console: Console) -> None:
        from rich.measure import Measurement
        from rich.text import Text

        console.print()
        table = self._table()
        unlimited = console.options.update_width(100_000)
        if Measurement.get(console, unlimited, table).maximum <= console.width:
            console.print(table)
        else:
            self._print_stacked(console)
        for basis, mark in self.bases.items():
            console.print(Text(f"[{mark}] {basis}", style="dim"))

    def _table(self) -> Table:
        """One row per metric; each side after the first has four columns."""
        from rich.text import Text

        columns = [column for label in self.labels[1:] for column in (label, "ratio", "95% interval", "")]
        table = table_of(self.name, "metric", "unit", self.labels[0], *columns, wrap=False)
        for column in table.columns[2:]:
            column.justify = "right" if column.header else "left"
            column.no_wrap = True
        for name, differences in self.metrics.items():
            row = written(differences)
            cells = [Text(self._title(name)), Text(row.unit), Text(row.baseline)]
            for found, cell in zip(differences, row.cells, strict=True):
                style = STYLES[found.verdict]
                texts = (cell.value, cell.ratio, cell.interval, f"{found.verdict} {self._mark(found)}")
                cells += [Text(text, style=style) for text in texts]
            table.add_row(*cells)
        return table

    def _print_stacked(self, console: Console) -> None:
        """A line with the metric and its unit, and below it one line per side."""
        from rich.text import Text

        console.print(Text(self.name, style="bold"))
        lines = {name: self._lines(differences) for name, differences in self.metrics.items()}
        columns = zip(*(texts for found in lines.values() for texts, _ in found), strict=True)
        widths = [max(map(len, column)) for column in columns]
        # A label that does not fit next to its figures has a line of its own.
        own_line = 2 + sum(widths) + 2 * (len(widths) - 1) > console.width
        for name, found in lines.items():
            unit = written(self.metrics[name]).unit
            console.print(Text(f"{self._title(name)} ({unit})" if unit else self._title(name), style="cyan"))
            for texts, style in found:
                label, *figures = texts
                padded = [text.rjust(width) for text, width in zip(figures, widths[1:], strict=True)]
                if own_line:
                    console.print(Text(f"  {label}", style=style))
                    padded = ["  ", *(text for text in figures if text)]
                else:
                    padded.insert(0, label.ljust(widths[0]))
                console.print(Text("  " + "  ".join(padded).rstrip(), style=style))

    def _lines(self, differences: Sequence[Difference]) -> list[tuple[tuple[str, ...], str]]:
        """The texts of one line per side, and their style."""
        row = written(differences)
        lines: list[tuple[tuple[str, ...], str]] = [((self.labels[0], row.baseline, "", "", ""), "")]
        for label, found, cell in zip(self.labels[1:], differences, row.cells, strict=True):
            verdict = f"{found.verdict} {self._mark(found)}"
            lines.append(((label, cell.value, cell.ratio, cell.interval, verdict), STYLES[found.verdict]))
        return lines

    def _title(self, name: str) -> str:
        return self.infos[name].title if name in self.infos else name

    def _mark(self, found: Difference) -> str:
        return f"[{self.bases.setdefault(found.basis, len(self.bases) + 1)}]"
