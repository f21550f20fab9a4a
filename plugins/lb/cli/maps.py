"""The commands `axoneme bpf lb …` and `axoneme lb maglev …`: what the kernel's maps of services hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from axoneme.core.cli.output import Column, Format, emit, output_option

if TYPE_CHECKING:
    from axoneme.core.cli.session import Session

Row = dict[str, Any]


@click.command(name="list")
@click.option("--frontends", is_flag=True, help="Only the services' own rows.")
@click.option("--backends", is_flag=True, help="The backends, by number.")
@click.option("--source-ranges", is_flag=True, help="The clients that services are for.")
@output_option
@click.pass_obj
def lb_list(session: Session, frontends: bool, backends: bool, source_ranges: bool, output: str) -> None:
    """List what the kernel's maps of services hold."""
    if frontends + backends + source_ranges > 1:
        raise click.UsageError("--frontends, --backends and --source-ranges exclude each other")
    if backends:
        emit(session.call("lb.map", view="backends"), output, _LB_BACKENDS, empty="no backends")
    elif source_ranges:
        emit(session.call("lb.map", view="sources"), output, _LB_SOURCES, empty="no source ranges")
    else:
        rows = session.call("lb.map", view="services")
        if output != Format.TABLE:
            emit(rows, output)
            return
        emit([*_slots(rows, frontends)], output, _LB, empty="no services")


_LB_BACKENDS = (
    Column("id", "id", right=True),
    Column("backend address", "address"),
    Column("flags", "flags"),
    Column("connections", "connections", right=True),
)
_LB_SOURCES = (Column("source range", "range"), Column("id", "id", right=True))
_LB = (
    Column("service address", "service"),
    Column("backend address", "backend"),
    Column("(id)", "id", right=True),
    Column("slots", "slots", right=True),
    Column("flags", "flags"),
)


def _slots(rows: list[Row], frontends: bool) -> Iterator[Row]:
    for row in rows:
        flags = [row["algorithm"], *row["flags"]] if row["algorithm"] else row["flags"]
        yield {
            "service": row["frontend"],
            "backend": "",
            "id": row["id"],
            "slots": row["slots"],
            "flags": flags,
        }
        for one in row["backends"] if not frontends else ():
            yield {
                "service": "",
                "backend": one["address"],
                "id": one["id"],
                "slots": one["slots"],
                "flags": "",
            }


@click.command(name="list")
@output_option
@click.pass_obj
def maglev_list(session: Session, output: str) -> None:
    """List the tables of services that hash consistently."""
    _tables(session.call("lb.map", view="maglev"), output)


@click.command(name="get")
@click.argument("service", type=click.IntRange(min=1), metavar="SERVICE-ID")
@output_option
@click.pass_obj
def maglev_get(session: Session, service: int, output: str) -> None:
    """Show one service's table: the numbers of backends, slot by slot."""
    rows = session.call("lb.map", view="maglev", number=service)
    if not rows:
        raise click.ClickException(f"no service with the id {service} hashes consistently")
    _tables(rows, output)


def _tables(rows: list[Row], output: str) -> None:
    columns = (
        Column("svc id", "id", right=True),
        Column("frontend", "frontend"),
        Column("size", lambda row: len(row["table"]), right=True),
        Column("lookup table", lambda row: f"[{' '.join(map(str, row['table']))}]"),
    )
    emit(rows, output, columns, empty="no service hashes consistently")
