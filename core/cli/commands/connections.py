"""`axoneme bpf ct` and `axoneme bpf nat`: the connection table, in the layout of `cilium-dbg`, which scripts read."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import click

from axoneme.core.cli.output import Format, emit, output_option
from axoneme.core.cli.session import Session

Row = Mapping[str, Any]

#: `TUPLE_F_…` of Cilium's `bpf/lib/common.h`: which end is asked, or whether it is the service that is.
_KINDS: Final = {"OUT": 0, "IN": 1, "SVC": 4}
_PROTOCOLS: Final = {"ICMP": 1, "TCP": 6, "UDP": 17, "ICMPv6": 58, "SCTP": 132}

#: FIN and RST.
_ENDS: Final = 1 | 4


def _one_cluster(_context: click.Context, _parameter: click.Parameter, words: tuple[str, ...]) -> None:
    """What `cilium-dbg` takes here. It has a table for each cluster of a mesh; there is only one here."""
    if words and words[0] == "cluster":
        raise click.UsageError("there is one cluster here; 'global', or nothing, is all of its connections")
    if words not in ((), ("global",)):
        raise click.UsageError(f"{' '.join(words)!r} is no table of connections; there is 'global'")


_SCOPE = click.argument(
    "scope",
    nargs=-1,
    metavar="[global]",
    expose_value=False,
    callback=_one_cluster,
    shell_complete=lambda *_: ["global"],
)
_ADDRESS = click.option(
    "--address", default="", metavar="ADDRESS[:PORT]", help="Only connections of this end."
)
_PROTOCOL = click.option("--protocol", default="", help="Only this protocol, such as tcp.")


@click.command()
@_SCOPE
@click.option("-d", "--time-diff", is_flag=True, help="Also say in how many seconds each entry expires.")
@_ADDRESS
@_PROTOCOL
@output_option
@click.pass_obj
def ct_list(session: Session, time_diff: bool, address: str, protocol: str, output: str) -> None:
    """List the connection table.

    A connection is a line OUT if its source is on this node, and a line IN if its destination is; one through a service
    is a line SVC as well, with the address that was asked for. `expires` is in seconds since the machine started. Packets and
    bytes are of both directions; Rx is what the end on this line received, Tx what it sent. Of TCP's flags SYN, FIN and RST are
    remembered. LastRxReport and LastTxReport are when the last packet came, in seconds like `expires`; 0: none did.
    """
    rows = _rows(session, address=address, protocol=protocol)
    entries = ((kind, row) for row in rows for kind in _kinds(row))
    _print(entries, output, lambda kind, row: _ct_line(kind, row, time_diff=time_diff), _ct_record)


@click.command()
@_SCOPE
@click.pass_obj
def ct_flush(session: Session) -> None:
    """Forget all connections: their next packets are decided anew, and translations begin anew."""
    _flush(session, translated=False)


@click.command()
@_SCOPE
@_ADDRESS
@_PROTOCOL
@output_option
@click.pass_obj
def nat_list(session: Session, address: str, protocol: str, output: str) -> None:
    """List the connections whose packets go on with another source, a line for each direction.

    `Created` is when the connection began. `NeedsCT` is always 1: a translation is part of its connection's entry.
    """
    rows = _rows(session, address=address, protocol=protocol, translated=True)
    entries = ((kind, row) for row in rows for kind in ("OUT", "IN"))
    _print(entries, output, _nat_line, _nat_record)


@click.command()
@_SCOPE
@click.pass_obj
def nat_flush(session: Session) -> None:
    """Forget all connections whose packets get other addresses, services' included: their translations begin anew."""
    _flush(session, translated=True)


def _rows(session: Session, **wanted: Any) -> Iterator[Row]:
    return (row for part in session.stream("bpf.ct.list", **wanted) for row in part)


def _flush(session: Session, *, translated: bool) -> None:
    for table, count in session.call("bpf.ct.flush", translated=translated).items():
        click.echo(f"Flushed {count} entries from {table}")


def _print(
    entries: Iterator[tuple[str, Row]],
    output: str,
    line: Callable[[str, Row], str],
    record: Callable[[str, Row], Any],
) -> None:
    if output != Format.TABLE:
        emit([record(kind, row) for kind, row in entries], output)
        return
    for kind, row in entries:
        click.echo(line(kind, row))


def _kinds(row: Row) -> Iterator[str]:
    if row["service"]:
        yield "SVC"
    if row["source_endpoint"] or not row["destination_endpoint"]:
        yield "OUT"
    if row["destination_endpoint"]:
        yield "IN"


class _Flag(enum.IntFlag):
    """What Cilium's entries say of a connection, in its numbers (`pkg/maps/ctmap`): those that can be told of ours."""

    RxClosing = 1
    TxClosing = 2
    LBLoopback = 8
    NodePort = 32
    ProxyRedirect = 64


def _ct_line(kind: str, row: Row, *, time_diff: bool = False) -> str:
    value = _ct_value(kind, row)
    names = "".join(f"{flag.name} " for flag in _Flag if flag & value["Flags"])
    left = f" (remaining: {row['remaining']} sec(s))" if time_diff else ""
    return (
        f"{row['protocol']} {kind} {row['source']} -> {_asked(kind, row)} expires={value['Lifetime']}{left} "
        f"Packets={value['Packets']} Bytes={value['Bytes']} RxFlagsSeen={value['RxFlagsSeen']:#04x} "
        f"LastRxReport={value['LastRxReport']} TxFlagsSeen={value['TxFlagsSeen']:#04x} "
        f"LastTxReport={value['LastTxReport']} Flags={value['Flags']:#06x} [ {names}] RevNAT={value['RevNAT']} "
        f"SourceSecurityID={value['SourceSecurityID']} BackendID={value['BackendID']}"
    )


def _asked(kind: str, row: Row) -> str:
    return str(row["service"] if kind == "SVC" else row["destination"])


def _ct_record(kind: str, row: Row) -> dict[str, Any]:
    key = _key(kind, row["protocol"], row["source"], _asked(kind, row))
    return {"Key": key, "Value": _ct_value(kind, row)}


def _ct_value(kind: str, row: Row) -> dict[str, Any]:
    sides = row["destination_flags"], row["source_flags"]
    times = row["destination_sent"], row["source_sent"]
    received, sent = reversed(sides) if kind == "IN" else sides
    last_received, last_sent = reversed(times) if kind == "IN" else times
    flags = (
        _Flag.RxClosing * bool(received & _ENDS)
        | _Flag.TxClosing * bool(sent & _ENDS)
        | _Flag.LBLoopback
        * bool(row["service"] and row["source_endpoint"] == row["destination_endpoint"] != 0)
        | _Flag.NodePort * bool(row["service"] and not row["source_endpoint"])
        | _Flag.ProxyRedirect * bool(row["proxied"])
    )
    return {
        "Packets": row["packets"],
        "Bytes": row["bytes"],
        "Lifetime": row["expires"],
        "Flags": int(flags),
        "RevNAT": row["service_id"],
        "TxFlagsSeen": sent,
        "RxFlagsSeen": received,
        "LastTxReport": last_sent,
        "LastRxReport": last_received,
        "SourceSecurityID": row["source_identity"],
        "DestinationSecurityID": row["destination_identity"],
        "BackendID": row["backend_id"],
    }


def _key(kind: str, protocol: str, source: str, destination: str) -> dict[str, Any]:
    (from_host, from_port), (to_host, to_port) = _parts(source), _parts(destination)
    return {
        "DestAddr": to_host,
        "SourceAddr": from_host,
        "DestPort": to_port,
        "SourcePort": from_port,
        "NextHeader": _PROTOCOLS.get(protocol) or int(protocol),
        "Flags": _KINDS[kind],
    }


def _parts(place: str) -> tuple[str, int]:
    host, _, port = place.rpartition(":")
    return host.strip("[]"), int(port)


def _mapping(kind: str, row: Row) -> tuple[str, str, str]:
    """Who sends in this direction, whom to, and what the source (OUT) or the destination (IN) becomes."""
    if kind == "OUT":
        return row["source"], row["destination"], row["masqueraded"]
    return row["destination"], row["masqueraded"], row["source"]


def _nat_line(kind: str, row: Row) -> str:
    source, destination, other = _mapping(kind, row)
    side = "SRC" if kind == "OUT" else "DST"
    return f"{row['protocol']} {kind} {source} -> {destination} XLATE_{side} {other} Created={row['age']}sec ago NeedsCT=1"


def _nat_record(kind: str, row: Row) -> dict[str, Any]:
    source, destination, other = _mapping(kind, row)
    address, port = _parts(other)
    value = {"Addr": address, "Port": port, "Age": row["age"], "NeedsCT": 1}
    return {"Key": _key(kind, row["protocol"], source, destination), "Value": value}
