"""The commands of the plugin: `axoneme service …`, `axoneme bpf lb|ct|nat …`, `axoneme lb maglev …`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from axoneme.core.cli.output import Column, Format, emit, output_option
from axoneme.plugins.lb.annotations import ALGORITHMS
from axoneme.plugins.lb.model import Protocol

if TYPE_CHECKING:
    from axoneme.core.cli.session import Session

Row = dict[str, Any]

_SERVICES = (
    Column("id", "id", right=True),
    Column("frontend", "frontend"),
    Column("service type", "type"),
    Column("service", "service"),
    Column("backend", "backend"),
)
_BACKENDS = (
    Column("slots", "slots", right=True),
    Column("backend", "address"),
    Column("id", "id", right=True),
    Column("state", "state"),
    Column("weight", "weight", right=True),
    Column("workload", lambda row: row["workload"] or "-"),
    Column("why", "why"),
)


def _spread(rows: list[Row]) -> Iterator[Row]:
    """A line per backend, as `cilium-dbg service list` prints it; the first one has the service's own columns."""
    for row in rows:
        backends = [
            f"{number} => {one['address']} ({one['state']})" + ("" if one["used"] else " unused")
            for number, one in enumerate(row["backends"], 1)
        ]
        name = f"{row['namespace']}/{row['name']}"
        for number, text in enumerate(backends or [_first(row["problems"])]):
            if number == 0:
                yield {**row, "id": row["id"] or "-", "service": name, "backend": text}
            else:
                yield {"id": "", "frontend": "", "type": "", "service": "", "backend": text}


def _first(problems: list[str]) -> str:
    return f"! {problems[0]}" if problems else "-"


@click.command(name="list")
@click.option("-n", "--namespace", default="", help="Only services of this namespace.")
@click.option("-t", "--type", "kind", default="", help="Only frontends of this type, such as NodePort.")
@click.option("--problems", is_flag=True, help="Only services of which something has no effect.")
@output_option
@click.pass_obj
def service_list(session: Session, namespace: str, kind: str, problems: bool, output: str) -> None:
    """List services by frontend, with their backends."""
    rows = [
        row
        for part in session.stream("service.list")
        for row in part
        if (not namespace or row["namespace"] == namespace)
        and (not kind or row["type"].lower() == kind.lower())
        and (not problems or row["problems"])
    ]
    _print(rows, output)


@click.command(name="get")
@click.argument("service")
@output_option
@click.pass_obj
def service_get(session: Session, service: str, output: str) -> None:
    """Show one service: by id, [NAMESPACE/]NAME, or ADDRESS:PORT."""
    _print(session.call("service.get", service=service), output)


def _print(rows: list[Row], output: str) -> None:
    shown = [*_spread(rows)] if output == Format.TABLE else rows
    emit(shown, output, _SERVICES, empty="no services")


@click.command(name="explain")
@click.argument("frontend", metavar="VIP:PORT[/PROTO]")
@output_option
@click.pass_obj
def service_explain(session: Session, frontend: str, output: str) -> None:
    """Say what becomes of connections to an address and port: which backends get them, and why the others don't."""
    rows = session.call("service.explain", frontend=frontend)
    if output != Format.TABLE:
        emit(rows, output)
        return
    for number, row in enumerate(rows):
        if number:
            click.echo()
        _explain(row)


def _explain(row: Row) -> None:
    click.echo(f"{row['frontend']} {row['traffic']}: {row['service']}, {row['type']}, id {row['id']}")
    affinity = f", clients keep their backend for {row['affinity']} s" if row["affinity"] else ""
    click.echo(f"  {row['algorithm']} over {row['slots']} slots{affinity}")
    if row["source_ranges"]:
        click.echo(f"  only for clients in {', '.join(row['source_ranges'])}")
    if not row["in_kernel"]:
        click.echo("  not in the kernel")
    for problem in row["problems"]:
        click.echo(f"  ! {problem}")
    if not row["slots"]:
        click.echo("  there is no backend: packets are dropped")
    emit(row["backends"], Format.TABLE, _BACKENDS, empty="  nobody is behind it")


@click.command(name="add")
@click.argument("name", metavar="[NAMESPACE/]NAME")
@click.option(
    "--vip",
    "vips",
    multiple=True,
    metavar="ADDRESS:PORT",
    help="Where it is reached. Several, if the port is the same.",
)
@click.option(
    "--backend", "backends", multiple=True, metavar="ADDRESS:PORT[=WEIGHT]", help="Who is behind it. Several."
)
@click.option(
    "-l", "--selector", multiple=True, metavar="KEY=VALUE", help="Or: workloads of this node with this label."
)
@click.option("--target-port", default=0, help="The port of the workloads, if it is another one.")
@click.option(
    "--protocol",
    type=click.Choice([*Protocol.__members__], case_sensitive=False),
    default="TCP",
    show_default=True,
)
@click.option("--node-port", default=0, help="Also at this port of the node's addresses.")
@click.option("--external", is_flag=True, help="Those who are not on this node may use it, too.")
@click.option(
    "--algorithm",
    type=click.Choice([*ALGORITHMS]),
    help="How a backend is chosen; the default is in the configuration.",
)
@click.option("--affinity", default=0, metavar="SECONDS", help="For how long a client keeps its backend.")
@click.pass_obj
def service_add(session: Session, name: str, vips: tuple[str, ...], backends: tuple[str, ...], selector: tuple[str, ...], target_port: int, protocol: str, node_port: int, external: bool, algorithm: str | None, affinity: int) -> None:  # fmt: skip
    """Add a service that is in no file, or replace it. It stays, over restarts, until it is deleted.

    axoneme service add web --vip 10.96.0.10:80 --backend 10.244.0.2:8080 --backend 10.244.0.3:8080=2
    """
    namespace, _, own = name.rpartition("/")
    places = [_place(vip, "--vip") for vip in vips]
    if len({port for _, port in places}) > 1:
        raise click.BadParameter("all addresses of a service have the same port", param_hint="--vip")
    if bool(backends) == bool(selector):
        raise click.UsageError("say --backend or --selector: one of them is who is behind the service")
    if not places and not (node_port and target_port):
        raise click.UsageError("say --vip, or --node-port with --target-port")
    session.call(
        "service.add",
        namespace=namespace or "default",
        name=own,
        vips=[address for address, _ in places],
        port=places[0][1] if places else target_port,
        protocol=protocol.upper(),
        node_port=node_port,
        external=external,
        backends=[_backend(text) for text in backends],
        selector=_labels(selector),
        target=target_port,
        algorithm=algorithm or "",
        affinity=affinity,
    )
    click.echo(f"added {namespace or 'default'}/{own}")


@click.command(name="delete")
@click.argument("names", nargs=-1, required=True, metavar="[NAMESPACE/]NAME...")
@click.pass_obj
def service_delete(session: Session, names: tuple[str, ...]) -> None:
    """Delete services that `axoneme service add` made."""
    for name in names:
        namespace, _, own = name.rpartition("/")
        answer = session.call("service.delete", name=own, namespace=namespace or "default")
        click.echo(f"deleted {answer['deleted']}")


def _place(text: str, option: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal():
        raise click.BadParameter(
            f"{text!r} is not of the form ADDRESS:PORT or [ADDRESS]:PORT", param_hint=option
        )
    return host.strip("[]"), int(port)


def _backend(text: str) -> Row:
    rest, equals, weight = text.partition("=")
    if equals and not weight.isdecimal():
        raise click.BadParameter(f"{weight!r} is no weight", param_hint="--backend")
    address, port = _place(rest, "--backend")
    return {"address": address, "port": port, "weight": int(weight) if equals else 1}


def _labels(texts: tuple[str, ...]) -> dict[str, str]:
    pairs = [pair for text in texts for pair in text.split(",") if pair]
    for pair in pairs:
        if "=" not in pair:
            raise click.BadParameter(f"{pair!r} is not of the form KEY=VALUE", param_hint="--selector")
    return dict(pair.split("=", 1) for pair in pairs)


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


@click.command(name="list")
@output_option
@click.pass_obj
def pool_list(session: Session, output: str) -> None:
    """List the pools that services of the type LoadBalancer get addresses from."""
    columns = (
        Column("name", "name"),
        Column("given", "given", right=True),
        Column("available", "available", right=True),
        Column("disabled", "disabled"),
        Column("blocks", "blocks"),
        Column("problem", lambda row: row["problem"] or "-"),
    )
    emit(session.call("lb.pools"), output, columns, empty="no pools")


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
