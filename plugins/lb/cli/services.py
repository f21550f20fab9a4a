"""The commands `axoneme service list`, `get` and `explain`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from axoneme.core.cli.output import Column, Format, emit, output_option

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
