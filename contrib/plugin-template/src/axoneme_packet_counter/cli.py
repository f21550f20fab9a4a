"""The command `axoneme packet-counter top`. It runs in a process of its own and asks the agent through its API."""

from __future__ import annotations

import click

from axoneme.core.cli.output import Column, emit, output_option
from axoneme.core.cli.session import Session

COLUMNS = (
    Column("workload", "workload"),
    Column("packets in", "in_packets", right=True),
    Column("bytes in", "in_bytes", right=True),
    Column("packets out", "out_packets", right=True),
    Column("bytes out", "out_bytes", right=True),
)


@click.command()
@click.option("-n", "--count", type=click.IntRange(1), help="How many workloads; by default as configured.")
@output_option
@click.pass_obj
def top(session: Session, count: int | None, output: str) -> None:
    """Show the workloads with the most bytes."""
    # `emit` imports rich when it has a table to print: nothing else of the program does.
    emit(session.call("packet-counter.top", count=count), output, COLUMNS, empty="no traffic yet")
