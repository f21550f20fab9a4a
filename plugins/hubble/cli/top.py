"""`axoneme hubble top`: the busiest pairs, live."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs
import click

from axoneme.core.cli.output import Column, colored, table
from axoneme.plugins.hubble.cli.commands import observer_stub
from axoneme.plugins.hubble.cli.observe import FlowsCommand, filter_options
from axoneme.plugins.hubble.cli.options import Server, server_options
from axoneme.plugins.hubble.cli.request import Selection, flows_request
from axoneme.plugins.hubble.cli.tally import FIELDS, Row, Tally

if TYPE_CHECKING:
    from rich.console import RenderableType

_COLUMNS: Final = (
    Column("from", "client"),
    Column("to", "server"),
    Column("port", "port"),
    Column("flows/s", lambda row: f"{row['rate']:.1f}", right=True),
    Column("flows", "flows", right=True),
    Column("drops", lambda row: row["drops"] or "", right=True),
    Column("why", "reason"),
    Column("answers", lambda row: row["answers"] or "", right=True),
    Column("p50 ms", lambda row: f"{row['latency'][0]:.1f}" if row["latency"] else "", right=True),
    Column("p99 ms", lambda row: f"{row['latency'][1]:.1f}" if row["latency"] else "", right=True),
)


class Feed(threading.Thread):
    """Counts what comes, in a thread of its own, because reading waits."""

    def __init__(self, answers: Callable[[], Any], tally: Tally) -> None:
        super().__init__(daemon=True)
        self.lock = threading.Lock()
        self.error: Exception | None = None
        self._answers = answers
        self._tally = tally

    def run(self) -> None:
        try:
            for answer in self._answers():
                with self.lock:
                    self._tally.add(answer, time.monotonic())
        except Exception as error:  # noqa: BLE001 - raised again where it can be explained
            self.error = error

    def rows(self, by: str, limit: int) -> list[Row]:
        if self.error is not None:
            raise self.error
        with self.lock:
            return self._tally.rows(time.monotonic(), by)[:limit]


@click.command(cls=FlowsCommand)
@click.option(
    "--by", type=click.Choice(["flows", "drops", "latency"]), default="flows", help="What comes first."
)
@click.option(
    "--window", type=click.FloatRange(1, 3600), default=30.0, metavar="SECONDS", help="What is counted (30)."
)
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 60),
    default=1.0,
    metavar="SECONDS",
    help="Between two looks (1).",
)
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=20, metavar="N", help="How many pairs are shown (20)."
)
@click.option("--count", type=click.IntRange(min=0), default=0, metavar="N", help="End after so many looks.")
@click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", help="A table, or JSON per look."
)
@filter_options
@server_options
def top(
    server: Server,
    allow: Sequence[tuple[str, Sequence[str]]],
    deny: Sequence[tuple[str, Sequence[str]]],
    by: str,
    window: float,
    interval: float,
    limit: int,
    count: int,
    output: str,
) -> None:
    """Watch who talks most, what is dropped, and how long answers take. Ctrl-C ends it.

    The filter flags are those of `observe`.
    """
    request = flows_request(Selection(follow=True), allow, deny, mask=FIELDS)
    tally = Tally(window)
    with server.stub(observer_stub) as stub:
        call = stub.GetFlows(request)
        feed = Feed(lambda: call, tally)
        feed.start()
        try:
            _looks(feed, tally, by=by, limit=limit, interval=interval, count=count, output=output)
        finally:
            call.cancel()


def _looks(
    feed: Feed, tally: Tally, *, by: str, limit: int, interval: float, count: int, output: str
) -> None:
    show, end = _show(output)
    try:
        looked = 0
        while not count or looked < count:
            feed.join(interval)  # ends early when the stream does
            looked += 1
            show(feed.rows(by, limit), tally.lost)
            if not feed.is_alive():
                return
    finally:
        end()


def _show(output: str) -> tuple[Callable[[list[Row], int], None], Callable[[], None]]:
    """What shows rows, and what ends the showing."""
    if output == "json":
        return lambda rows, lost: click.echo(
            json.dumps({"lost": lost, "pairs": list(map(attrs.asdict, rows))})
        ), lambda: None
    if not colored():
        return _plain, lambda: None
    from rich.live import Live

    live = Live(auto_refresh=False, screen=True)
    live.start()
    return lambda rows, lost: live.update(_live(rows, lost), refresh=True), live.stop


def _plain(rows: list[Row], lost: int) -> None:
    table([attrs.asdict(row) for row in rows], _COLUMNS)
    click.echo(f"{lost} flows were lost\n" if lost else "")


def _live(rows: list[Row], lost: int) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    caption = "Ctrl-C ends" + (f"; {lost} flows were lost" if lost else "")
    shown = Table(
        box=None, pad_edge=False, header_style="bold", expand=True, caption=caption, caption_justify="left"
    )
    for column in _COLUMNS:
        shown.add_column(
            column.heading.upper(),
            justify="right" if column.right else "left",
            overflow="ellipsis",
            no_wrap=True,
        )
    for row in rows:
        cells = [column.text(attrs.asdict(row)) for column in _COLUMNS]
        shown.add_row(
            *map(Text, cells), style="red" if row.drops == row.flows else "yellow" if row.drops else ""
        )
    return shown
