"""How a demo looks: a live table on a terminal, lines elsewhere, rows for programs."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import IO, TYPE_CHECKING, Any, Final

import click
from attrs import frozen

from axoneme.core.demo.article import ALLOWED, DROPPED
from axoneme.core.demo.place import Place
from axoneme.core.demo.running import Result
from axoneme.core.demo.verdicts import Verdict

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

HEADINGS: Final = ("from", "to", "port", "IP", "expected", "seen", "decided by")
_WIDTHS: Final = (15, 15, 4, 3, 8, 9, 0)
_STYLES: Final = {ALLOWED: "green", DROPPED: "yellow"}


@frozen
class Row:
    """A line of the table: one request, or the same one by IPv4 and IPv6 with the same end."""

    verdicts: tuple[Verdict, ...]

    @property
    def ok(self) -> bool:
        return all(verdict.ok for verdict in self.verdicts)

    def decided(self) -> bool:
        """Whether a policy had a say."""
        return any(verdict.decisions for verdict in self.verdicts)

    def cells(self) -> tuple[str, ...]:
        first = self.verdicts[0]
        flow = first.flow
        families = " ".join(f"{verdict.flow.family}" for verdict in self.verdicts)
        return (
            flow.source,
            flow.destination,
            str(flow.port),
            families,
            first.expected,
            first.seen,
            first.why,
        )


class Pairs:
    """Puts the verdicts of both families together."""

    def __init__(self) -> None:
        self._half: dict[tuple[str, str, int], Verdict] = {}

    def add(self, verdict: Verdict) -> tuple[Row, ...]:
        """The rows that are complete with this verdict: none, one for both families, or one each where they differ."""
        flow = verdict.flow
        key = (flow.source, flow.destination, flow.port)
        other = self._half.pop(key, None)
        if other is None:
            self._half[key] = verdict
            return ()
        pair = sorted((other, verdict), key=lambda each: each.flow.family)
        if len({(each.expected, each.seen, each.why) for each in pair}) == 1:
            return (Row(tuple(pair)),)
        return tuple(Row((each,)) for each in pair)


def rows(verdicts: Iterable[Verdict]) -> list[Row]:
    pairs = Pairs()
    return [row for verdict in verdicts for row in pairs.add(verdict)]


def summary(result: Result) -> str:
    """One line: how many, how long, and whether all is as expected."""
    seen = [verdict.seen for verdict in result.verdicts]
    other = len(seen) - seen.count(ALLOWED) - seen.count(DROPPED)
    counts = f"{seen.count(ALLOWED)} allowed, {seen.count(DROPPED)} dropped" + (
        f", {other} neither" if other else ""
    )
    wrong = [verdict for verdict in result.verdicts if not verdict.ok]
    norm = "as the article says" if result.active else "as expected where no policy is in force"
    judgement = f"all {norm}" if not wrong else f"{len(wrong)} NOT {norm}"
    return f"{len(seen)} requests in {result.seconds:.1f} s: {counts}; {judgement}"


def say(text: str, *, err: bool = False) -> None:
    """A line for whoever is still listening: a closed pipe or terminal must not keep a demo from cleaning up."""
    with contextlib.suppress(OSError):
        click.echo(text, err=err)


class Lines:
    """For everything that is no terminal: a line as soon as there is something to say.

    :param write: gets each line.
    """

    def __init__(self, write: Callable[[str], None] = say, *, table: bool = True) -> None:
        self._write = write
        self._table = table
        self._pairs = Pairs()
        self._begun = False

    def step(self, name: str, text: str) -> None:
        self._write(f"{name:<9} {text}")

    def verdict(self, verdict: Verdict) -> None:
        if not self._table:
            return
        if not self._begun:
            self._begun = True
            self._write("\n" + _line(HEADINGS).upper())
        for row in self._pairs.add(verdict):
            self._write(_line(row.cells()) + ("" if row.ok else "  <- differs"))

    def result(self, result: Result) -> None:
        if self._table:
            for line in differing(result):
                self._write(line)
        self._write(f"\n{summary(result)}")

    def close(self) -> None:
        return


def _line(cells: Sequence[str]) -> str:
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, _WIDTHS, strict=True)).rstrip()


def differing(result: Result) -> list[str]:
    """The rows that are not as expected, once more, with a heading; empty when there is none."""
    wrong = [_line(row.cells()) for row in rows(result.verdicts) if not row.ok]
    return ["", "These differ:", *wrong] if wrong else []


class Terminal:
    """For a terminal: steps, then a table that fills, then the whole of it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._pairs = Pairs()
        self._rows: list[Row] = []
        self._live: Live | None = None
        self._begin = time.monotonic()

    def step(self, name: str, text: str) -> None:
        from rich.text import Text

        seconds = time.monotonic() - self._begin
        self._console.print(Text.assemble((f"{seconds:5.1f} s ", "dim"), (f"{name:<9} ", "bold"), text))

    def verdict(self, verdict: Verdict) -> None:
        from rich.live import Live

        if self._live is None:
            self._live = Live(console=self._console, transient=True, get_renderable=self._latest)
            self._live.start()
        self._rows += self._pairs.add(verdict)

    def _latest(self) -> Table:
        """The last rows that there is room for: what is above a live table must not scroll."""
        room = max(self._console.height - 4, 1)
        return _table(self._rows[-room:])

    def result(self, result: Result) -> None:
        self.close()
        self._console.print()
        # What the policies decided comes last: that is what stays on a small screen.
        self._console.print(_table(sorted(rows(result.verdicts), key=Row.decided)))
        for line in differing(result):
            self._console.print(line, style="bold red", highlight=False)
        style = "bold green" if result.ok else "bold red"
        self._console.print(f"\n{summary(result)}", style=style, highlight=False)

    def close(self) -> None:
        """Gives the terminal back as it was."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def _table(shown: Iterable[Row]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in HEADINGS:
        table.add_column(
            heading.upper(), no_wrap=heading != HEADINGS[-1], justify="right" if heading == "port" else "left"
        )
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


def for_people(stream: IO[str] | None = None) -> Lines | Terminal:
    """The display that fits standard output."""
    if not (stream or sys.stdout).isatty():
        return Lines()
    from rich.console import Console

    return Terminal(Console(highlight=False))


def report(result: Result) -> dict[str, Any]:
    """The whole for programs, with stable keys."""
    verdicts = result.verdicts
    return {
        "ok": result.ok,
        "seconds": round(result.seconds, 3),
        "counts": {
            "requests": len(verdicts),
            "allowed": sum(verdict.seen == ALLOWED for verdict in verdicts),
            "dropped": sum(verdict.seen == DROPPED for verdict in verdicts),
            "differing": sum(not verdict.ok for verdict in verdicts),
        },
        "workloads": [
            {
                "name": endpoint.uid,
                "endpoint": endpoint.id,
                "identity": endpoint.identity,
                "netns": endpoint.netns,
                "addresses": [str(address) for address in endpoint.addresses],
            }
            for endpoint in result.endpoints.values()
        ],
        "resources": [{"file": file, "in_force": True, "waits_for": []} for file in result.active]
        + [
            {"file": file, "in_force": False, "waits_for": list(names)}
            for file, names in result.waiting.items()
        ],
        "requests": [_request(verdict) for verdict in verdicts],
    }


def _request(verdict: Verdict) -> dict[str, Any]:
    flow = verdict.flow
    return {
        "source": flow.source,
        "destination": flow.destination,
        "port": flow.port,
        "family": f"IPv{flow.family}",
        "expected": verdict.expected,
        "seen": verdict.seen,
        "ok": verdict.ok,
        "reason": verdict.reason,
        "rules": [
            {
                "direction": rule.direction,
                "id": rule.id,
                "policy": rule.policy,
                "path": rule.path,
                "effect": rule.effect,
                "file": rule.file,
                "line": rule.line,
            }
            for rule in verdict.decisions
        ],
        "decided_by": verdict.why,
    }


def next_steps(place: Place, result: Result, program: str) -> list[str]:
    """What to look at while it runs: commands that can be copied.

    :param program: how `axoneme` is called here.
    """
    axoneme = f"{program} --config {place.config_file}"
    backend = result.endpoints["backend-service"]
    curl = f"curl -m 2 http://{backend.ipv4}:8080/"
    return [
        "It goes on running. In another terminal, as root:",
        "",
        f"  {axoneme} status",
        f"  {axoneme} endpoint list",
        f"  {axoneme} policy get backend-service",
        f"  {axoneme} monitor --type drop",
        f"  ip netns exec {_netns(result, 'api-gateway')} {curl}    # answered",
        f"  ip netns exec {_netns(result, 'frontend')} {curl}    # dropped: look at the monitor",
        "",
        f"Edit {place.resources / 'l4-lb-policy.yaml'} and try again. Ctrl-C removes everything.",
    ]


def _netns(result: Result, app: str) -> str:
    return result.endpoints[app].netns.rpartition("/")[2]


def program(argument: str) -> str:
    """How to call this program from another terminal."""
    found = shutil.which("axoneme")
    return "axoneme" if found == argument or argument.endswith(".py") else shlex.quote(argument)
