"""`axoneme datapath`."""

from __future__ import annotations

from typing import Any

import click

from axoneme.core.cli.output import Column, emit, output_option, table
from axoneme.core.cli.session import Session

_STEPS = (
    Column("#", "order", right=True),
    Column("phase", "phase"),
    Column("plugin", "plugin"),
    Column("step", "step"),
    Column("runs", "runs"),
    Column("instructions", "instructions", right=True),
    Column("digest", "digest"),
    Column("file", "file"),
)
_DEVICES = (
    Column("device", "name"),
    Column("used", "used"),
    Column("why", "why"),
    Column("addresses", "addresses"),
    Column("programs", "programs"),
    Column("note", lambda row: row["note"] or None),
)
_COUNTERS = (
    Column("reason", lambda row: row["reason"] or row["number"]),
    Column("direction", "direction"),
    Column("packets", "packets", right=True),
    Column("bytes", "bytes", right=True),
)


@click.command()
@click.option(
    "--cost", is_flag=True, help="Count the instructions of each file; compiles once more, some seconds."
)
@output_option
@click.pass_obj
def show(session: Session, output: str, cost: bool) -> None:
    """Show the composed order per attach point: plugin, step, file, digest, cost.

    Steps of the core are parsing, connection tracking and delivery; the others are stages that plugins added.
    """
    points = session.call("datapath.show", cost=cost)
    if output != "table":
        emit(points, output)
        return
    for number, point in enumerate(points):
        if number:
            click.echo()
        _show(point)


def _show(point: dict[str, Any]) -> None:
    attached = len(point["attached"])
    click.echo(
        f"{point['attach_point']} ({point['strategy']}, {attached} attached, digest {point['digest'][:16]})"
    )
    for p in point["programs"]:
        click.echo(f"  {p['name']}: {p['instructions']} instructions, {p['verified']} verified")
    table(point["steps"], _STEPS)


@click.command()
@click.argument("attach_point")
@click.pass_obj
def source(session: Session, attach_point: str) -> None:
    """Print the composed C of an attach point, as the compiler gets it."""
    click.echo(session.call("datapath.source", attach_point=attach_point)["text"])


@click.command()
@output_option
@click.pass_obj
def counters(session: Session, output: str) -> None:
    """Show packets and bytes by reason and direction, since the maps were made."""
    emit(session.call("datapath.counters"), output, _COUNTERS, empty="no packets yet")


@click.command()
@output_option
@click.pass_obj
def devices(session: Session, output: str) -> None:
    """Show the node's devices: which are used towards the world, and why the others are not.

    Interfaces that agents made themselves are left out.
    """
    emit(session.call("datapath.devices"), output, _DEVICES)
