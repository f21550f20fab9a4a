"""What a figure is, and what becomes of it: a row of the table and an entry of build/bench.json.

A module of figures has one function, `figures() -> list[Figure]`, and is named in `run.MODULES`.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from attrs import frozen


@frozen(kw_only=True)
class Figure:
    """Something that is measured.

    :param name: as in bench.json, for example `datapath.first_packet`.
    :param unit: of the samples and of the limit: `ns`, `s`, `ms`, `MiB`.
    :param limit: the most that the median may be, or the least.
    :param at_least: whether it is the least.
    :param measure: makes the samples, given how many rounds are wished for. A figure whose samples are not rounds (the
        median of a hundred workloads added) may ignore that number.
    """

    name: str
    unit: str
    limit: float
    what: str
    measure: Callable[[int], Sequence[float]]
    at_least: bool = False


@frozen(kw_only=True)
class Result:
    """A figure and its samples."""

    figure: Figure
    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def ok(self) -> bool:
        limit = self.figure.limit
        return self.median >= limit if self.figure.at_least else self.median <= limit

    def entry(self) -> dict[str, object]:
        """As it stands in bench.json; `runs` is the number of samples."""
        return {
            "name": self.figure.name,
            "unit": self.figure.unit,
            "runs": len(self.samples),
            "min": round(min(self.samples), 3),
            "median": round(self.median, 3),
            "max": round(max(self.samples), 3),
        }


def run(figure: Figure, rounds: int) -> Result:
    return Result(figure=figure, samples=tuple(figure.measure(rounds)))


def write(results: Sequence[Result], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([result.entry() for result in results], indent=2) + "\n", encoding="utf-8")


def show(results: Sequence[Result]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None)
    table.add_column("figure", no_wrap=True)
    table.add_column("what")
    for column in ("limit", "median", "min", "max", ""):
        table.add_column(column, justify="right", no_wrap=True)
    for result in results:
        unit = result.figure.unit
        numbers = (result.figure.limit, result.median, min(result.samples), max(result.samples))
        mark = "[green]ok[/]" if result.ok else "[red]missed[/]"
        table.add_row(result.figure.name, result.figure.what, *(f"{n:,.5g} {unit}" for n in numbers), mark)
    # A log file is no terminal, but can be as wide as the table.
    Console(width=None if sys.stdout.isatty() else 160).print(table)
