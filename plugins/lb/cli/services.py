"""The commands `axoneme service list`, `get` and `explain`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from axoneme.core.cli.output import Column, Format, aligned, emit, output_option, wide_output_option
from axoneme.plugins.lb.cli import models

if TYPE_CHECKING:
    from axoneme.core.cli.session import Session

Row = dict[str, Any]

#: As `cilium-dbg service list` has them; scripts read them.
_HEADINGS: Final = ("ID", "Frontend", "Service Type", "Backend")
_WIDE: Final = ("ID", "Frontend", "Service Type", "Service", "Algorithm", "Backend")

_BACKENDS = (
    Column("slots", "slots", right=True),
    Column("backend", "address"),
    Column("id", "id", right=True),
    Column("state", "state"),
    Column("weight", "weight", right=True),
    Column("workload", lambda row: row["workload"] or "-"),
    Column("why", "why"),
)


@click.command(name="list")
@click.option("-n", "--namespace", default="", help="Only services of this namespace.")
@click.option("-t", "--type", "kind", default="", help="Only frontends of this type, such as NodePort.")
@click.option(
    "--problems", is_flag=True, help="Only services of which something has no effect, and what; wide."
)
@click.option(
    "--clustermesh-affinity",
    "affinity",
    is_flag=True,
    help="Also list backends that nearer ones are preferred to, and say which are preferred.",
)
@wide_output_option
@click.pass_obj
def service_list(
    session: Session, namespace: str, kind: str, problems: bool, affinity: bool, output: str
) -> None:
    """List services by frontend, with their backends.

    Wide also has the service's name, backends that get no new connections, why they don't, and what of a service has no
    effect. JSON and YAML are `cilium-dbg`'s, with the problems in `status`.
    """
    rows = [
        row
        for part in session.stream("service.list")
        for row in part
        if (not namespace or row["namespace"] == namespace)
        and (not kind or row["type"].lower() == kind.lower())
        and (not problems or row["problems"])
    ]
    if problems and output == Format.TABLE:
        output = Format.WIDE
    _print(rows, output, affinity=affinity)


@click.command(name="get")
@click.argument("service")
@wide_output_option
@click.pass_obj
def service_get(session: Session, service: str, output: str) -> None:
    """Show one service: by id, [NAMESPACE/]NAME, or ADDRESS:PORT. JSON is one object for an id, else a list."""
    rows = session.call("service.get", service=service)
    if service.isdecimal() and output in (Format.JSON, Format.YAML):
        emit(models.service(rows[0]), output)
    else:
        _print(rows, output)


def _print(rows: list[Row], output: str, *, affinity: bool = False) -> None:
    if output in (Format.JSON, Format.YAML):
        emit([models.service(row) for row in rows], output)
    elif output == Format.WIDE:
        _table(_WIDE, (line for row in rows for line in _wide(row)))
    else:
        # Those without an address, such as headless ones, are nothing that could be reached.
        _table(_HEADINGS, (line for row in rows if row["frontend"] for line in _lines(row, affinity)))


def _table(headings: tuple[str, ...], lines: Iterator[tuple[str, ...]]) -> None:
    shown = [*lines]
    if shown:
        aligned(headings, shown)
    else:
        click.echo("no services", err=True)


def _lines(row: Row, affinity: bool) -> Iterator[tuple[str, ...]]:
    """A line per backend; the first one has the service's own columns."""
    listed = models.preferences(row) if affinity else ((one, "") for one in models.listed(row))
    backends = [
        f"{number} => {one['address']} ({models.state(one)}){preferred}"
        for number, (one, preferred) in enumerate(listed, 1)
    ]
    own = (str(row["id"] or "-"), row["frontend"], row["type"])
    return _spread(own, backends)


def _wide(row: Row) -> Iterator[tuple[str, ...]]:
    """A line per backend, and per problem."""
    texts = [
        f"{number} => {one['address']} ({one['state']})" + ("" if one["used"] else f", unused: {one['why']}")
        for number, one in enumerate(row["backends"], 1)
    ]
    own = (str(row["id"] or "-"), row["frontend"] or "-", row["type"],
           f"{row['namespace']}/{row['name']}", row["algorithm"] or "-")  # fmt: skip
    return _spread(own, texts + [f"! {problem}" for problem in row["problems"]])


def _spread(own: tuple[str, ...], texts: list[str]) -> Iterator[tuple[str, ...]]:
    yield (*own, texts[0] if texts else "")
    for text in texts[1:]:
        yield (*("" for _ in own), text)


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
