"""`axoneme bpf`."""

from __future__ import annotations

import json

import click

from axoneme.core.cli.output import Column, emit, output_option
from axoneme.core.cli.session import Session

_MAPS = (
    Column("id", "id", right=True),
    Column("name", "name"),
    Column("plugin", "plugin"),
    Column("kind", "kind"),
    Column("key", "key"),
    Column("value", "value"),
    Column("max", "max_entries", right=True),
    Column("about", "doc"),
)
PROGRAMS = (
    Column("id", "id", right=True),
    Column("name", "name"),
    Column("attach point", "attach_point"),
    Column("instructions", "instructions", right=True),
    Column("verified", "verified", right=True),
    Column("runs", "run_count", right=True),
    Column("mean ns", "mean_ns", right=True),
)
_ENTRIES = (
    Column("key", lambda row: json.dumps(row["key"], ensure_ascii=False)),
    Column("value", lambda row: json.dumps(row["value"], ensure_ascii=False)),
)


@click.command()
@output_option
@click.pass_obj
def map_list(session: Session, output: str) -> None:
    """List the open maps of the agent."""
    emit(session.call("bpf.map.list"), output, _MAPS)


@click.command()
@click.argument("name")
@click.option("--cpus", is_flag=True, help="Of a per-CPU map each CPU's own values, not the sums.")
@output_option
@click.pass_obj
def map_dump(session: Session, name: str, cpus: bool, output: str) -> None:
    """Print the entries of a map."""
    entries = [entry for batch in session.stream("bpf.map.dump", name=name, cpus=cpus) for entry in batch]
    emit(entries, output, _ENTRIES, empty=f"{name} is empty")


@click.command()
@output_option
@click.pass_obj
def program_list(session: Session, output: str) -> None:
    """List the loaded programs and their cost.

    Runs and mean time are counted while `datapath.stats` is on.
    """
    emit(session.call("bpf.program.list"), output, PROGRAMS)
