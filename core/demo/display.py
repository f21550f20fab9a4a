"""How a demo looks: lines and tables, on a terminal in colour."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Final

import click

from axoneme.core.demo.article import ALLOWED, DROPPED
from axoneme.core.demo.rows import CALL_HEADINGS, HEADINGS, Row, call_rows, rows
from axoneme.core.demo.running import Result
from axoneme.core.demo.verdicts import Verdict

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status
    from rich.table import Table

_WIDTHS: Final = (15, 15, 9, 3, 7, 8, 9, 0)
_CALL_WIDTHS: Final = (15, 12, 5, 15, 6, 3, 0)
#: What `hubble` prints of a policy's verdict, which is a flow of its own.
_POLICY: Final = ("ALLOWED", "DENIED")
_STYLES: Final = {ALLOWED: "green", DROPPED: "yellow"}


def summary(result: Result) -> str:
    """One line: how many, how long, and whether all is as expected."""
    seen = [verdict.seen for verdict in result.verdicts]
    other = len(seen) - seen.count(ALLOWED) - seen.count(DROPPED)
    counts = f"{seen.count(ALLOWED)} allowed, {seen.count(DROPPED)} dropped" + (
        f", {other} neither" if other else ""
    )
    counted = sum(each.call.requests for each in result.tallies)
    services = f"; {counted} more through services" if counted else ""
    norm = "as the article says" if result.active else "as expected where no policy is in force"
    judgement = f"{result.wrong} NOT {norm}" if result.wrong else f"all {norm}"
    return f"{len(seen)} requests in {result.seconds:.1f} s: {counts}{services}; {judgement}"


def flows(result: Result) -> list[str]:
    """What Hubble saw: how many, and what its lines look like."""
    seen = result.observed
    if seen is None:
        return []
    if seen.problem:
        return [f"Hubble saw nothing: {seen.problem}"]
    told = seen.verdicts
    packets = ", ".join(
        f"{number} {verdict.lower()}" for verdict, number in told.items() if verdict not in _POLICY
    )
    policies = ", ".join(f"{told.get(verdict, 0)} {verdict.lower()}" for verdict in _POLICY)
    total = sum(told.values())
    return [
        f"Hubble saw {total} flows: {packets}; of new connections, policies said: {policies}",
        *seen.samples,
    ]


def say(text: str, *, err: bool = False) -> None:
    """A line for whoever is still listening: a closed pipe or terminal must not keep a demo from cleaning up."""
    with contextlib.suppress(OSError):
        click.echo(text, err=err)


class Lines:
    """For everything that is no terminal.

    :param write: gets each line.
    """

    def __init__(self, write: Callable[[str], None] = say, *, table: bool = True) -> None:
        self._write = write
        self._table = table

    def step(self, name: str, text: str) -> None:
        self._write(f"{name:<9} {text}")

    def verdict(self, verdict: Verdict) -> None:
        return

    def result(self, result: Result) -> None:
        if self._table:
            for line in _tables(result):
                self._write(line)
        self._write(f"\n{summary(result)}")

    def close(self) -> None:
        return


def _tables(result: Result) -> Iterator[str]:
    yield "\n" + _line(HEADINGS, _WIDTHS).upper()
    for row in rows(result.verdicts):
        yield _line(row.cells(), _WIDTHS) + ("" if row.ok else "  <- differs")
    if result.tallies:
        yield "\n" + _line(CALL_HEADINGS, _CALL_WIDTHS).upper()
    for call in call_rows(result.tallies):
        yield _line(call.cells(), _CALL_WIDTHS) + ("" if call.ok else f"  <- {call.differs()}")
    if lines := flows(result):
        yield from ("", *lines)
    yield from differing(result)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def differing(result: Result) -> list[str]:
    """The rows that are not as expected, once more, with a heading; empty when there is none."""
    wrong = [_line(row.cells(), _WIDTHS) for row in rows(result.verdicts) if not row.ok]
    wrong += [
        f"{_line(row.cells(), _CALL_WIDTHS)}; {row.differs()}"
        for row in call_rows(result.tallies)
        if not row.ok
    ]
    return ["", "These differ:", *wrong] if wrong else []


class Terminal:
    """For a terminal: steps with their time, a word about what goes on, and the tables in colour."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._done = 0
        self._status: Status | None = None
        self._begin = time.monotonic()

    def step(self, name: str, text: str) -> None:
        from rich.text import Text

        seconds = time.monotonic() - self._begin
        self._console.print(Text.assemble((f"{seconds:5.1f} s ", "dim"), (f"{name:<9} ", "bold"), text))

    def verdict(self, verdict: Verdict) -> None:
        self._done += 1
        if self._status is None:
            self._status = self._console.status("")
            self._status.start()
        self._status.update(
            f"{self._done} requests are through; a dropped one is given a second to show that it is"
        )

    def result(self, result: Result) -> None:
        self.close()
        self._console.print()
        self._console.print(_verdicts(rows(result.verdicts)))
        if result.tallies:
            self._console.print()
            self._console.print(_calls(result))
        if lines := flows(result):
            self._console.print()
            self._console.print(lines[0], highlight=False)
            for line in lines[1:]:
                self._console.print(line, style="dim", highlight=False, markup=False)
        for line in differing(result):
            self._console.print(line, style="bold red", highlight=False, markup=False)
        style = "bold green" if result.ok else "bold red"
        self._console.print(f"\n{summary(result)}", style=style, highlight=False)

    def close(self) -> None:
        """Gives the terminal back as it was."""
        if self._status is not None:
            self._status.stop()
            self._status = None


def _table(headings: Sequence[str]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(
            heading.upper(), no_wrap=heading != headings[-1], justify="right" if heading == "port" else "left"
        )
    return table


def _verdicts(shown: Iterable[Row]) -> Table:
    from rich.text import Text

    table = _table(HEADINGS)
    for row in shown:
        *left, expected, seen, why = row.cells()
        style = _STYLES.get(seen, "") if row.ok else "bold red"
        table.add_row(
            *left,
            Text(expected, style="dim"),
            Text(seen, style=style),
            Text(why, style="dim" if why == "no policy" else ""),
        )
    return table


def _calls(result: Result) -> Table:
    from rich.text import Text

    table = _table(CALL_HEADINGS)
    for row in call_rows(result.tallies):
        *left, answers = row.cells()
        table.add_row(*left, Text(answers, style="green" if row.ok else "bold red"))
    return table


def for_people(stream: IO[str] | None = None) -> Lines | Terminal:
    """The display that fits standard output."""
    if not (stream or sys.stdout).isatty():
        return Lines()
    from rich.console import Console

    return Terminal(Console(highlight=False))
