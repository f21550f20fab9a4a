"""The commands `axoneme dns list` and `axoneme dns lookups`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from axoneme.core.cli.output import Column, emit, output_option

if TYPE_CHECKING:
    from axoneme.core.cli.session import Session

_MATCH = click.option("--match", default="*", metavar="PATTERN", help="Only names that look like this.")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


_NAMES = (
    Column("endpoint", lambda row: row["endpoint"] or None, right=True),
    Column("workload", lambda row: row["workload"] or None),
    Column("name", "name"),
    Column("ttl", "ttl", right=True),
    Column("expires", lambda row: _time(row["expires"])),
    Column("addresses", "addresses"),
    Column("selected by", "selectors"),
)


def _result(row: Mapping[str, Any]) -> Any:
    return row["addresses"] or row["rcode"] or None


_LOOKUPS = (
    Column("time", lambda row: _time(row["time"])),
    Column("workload", lambda row: row["workload"] or row["endpoint"]),
    Column("name", "name"),
    Column("type", "type"),
    Column("server", "server"),
    Column("protocol", "protocol"),
    Column("verdict", "verdict"),
    Column("answer", _result),
    Column("ms", lambda row: f"{row['seconds'] * 1000:.1f}", right=True),
)


@click.command(name="list")
@click.argument("workload", default="")
@_MATCH
@output_option
@click.pass_obj
def names(session: Session, workload: str, match: str, output: str) -> None:
    """List the names that were asked for, by WORKLOAD ([NAMESPACE/]NAME or endpoint id) or by all, with their addresses."""
    rows = session.call("dns.list", workload=workload, match=match)
    emit(rows, output, _NAMES, empty="no names are known")


@click.command(name="lookups")
@click.argument("workload", default="")
@_MATCH
@click.option("--last", default=20, show_default=True, type=click.IntRange(min=1), help="How many at most.")
@output_option
@click.pass_obj
def lookups(session: Session, workload: str, match: str, last: int, output: str) -> None:
    """Show the last questions, of WORKLOAD ([NAMESPACE/]NAME or endpoint id) or of all, and what became of them."""
    rows = session.call("dns.lookups", workload=workload, match=match, last=last)
    emit(rows, output, _LOOKUPS, empty="nobody has asked")
