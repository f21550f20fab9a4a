"""The commands `axoneme bpf ct …` and `axoneme bpf nat …`: connections and their translations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from axoneme.core.cli.output import Format, emit, output_option

if TYPE_CHECKING:
    from axoneme.core.cli.session import Session

Row = dict[str, Any]


def _choose(rows: Iterator[Row], address: str, protocol: str) -> Iterator[Row]:
    for row in rows:
        if protocol and row["protocol"].lower() != protocol.lower():
            continue
        places = (
            row["source"],
            row["destination"],
            row.get("translated_source", ""),
            row.get("translated_destination", ""),
        )
        if address and not any(address in (one, one.rpartition(":")[0].strip("[]")) for one in places):
            continue
        yield row


_ADDRESS = click.option("--address", default="", metavar="ADDRESS[:PORT]", help="Only entries with this end.")
_PROTOCOL = click.option("--protocol", default="", help="Only this protocol, such as tcp.")


def _entries(session: Session, translated: bool, address: str, protocol: str) -> Iterator[Row]:
    rows = (row for part in session.stream("lb.connections", translated=translated) for row in part)
    return _choose(rows, address, protocol)


@click.command(name="list")
@click.argument("scope", default="global", type=click.Choice(["global"]))
@_ADDRESS
@_PROTOCOL
@output_option
@click.pass_obj
def ct_list(session: Session, scope: str, address: str, protocol: str, output: str) -> None:
    """List the connection table, a line per direction."""
    _lines(_entries(session, False, address, protocol), output, _ct_line)


@click.command(name="list")
@_ADDRESS
@_PROTOCOL
@output_option
@click.pass_obj
def nat_list(session: Session, address: str, protocol: str, output: str) -> None:
    """List the translations in the connection table, a line per direction."""
    _lines(_entries(session, True, address, protocol), output, _nat_line)


def _lines(rows: Iterator[Row], output: str, line: Any) -> None:
    if output != Format.TABLE:
        emit([*rows], output)
        return
    for row in rows:
        click.echo(line(row))


def _ct_line(row: Mapping[str, Any]) -> str:
    return (
        f"{row['protocol']} {row['direction']} {row['source']} -> {row['destination']} idle={row['idle_seconds']:g}s "
        f"Packets={row['packets']} Bytes={row['bytes']} TCPFlags={row['tcp_flags']} Flags=[ {' '.join(row['flags'])} ] "
        f"SourceSecurityID={row['source_identity']} DestinationSecurityID={row['destination_identity']} "
        f"RevNAT={row['service']} BackendID={row['backend']}"
    )


def _nat_line(row: Mapping[str, Any]) -> str:
    return (
        f"{row['protocol']} {row['direction']} {row['source']} -> {row['destination']} "
        f"XLATE_SRC {row['translated_source']} XLATE_DST {row['translated_destination']} Created={row['age_seconds']:g}sec ago"
    )
