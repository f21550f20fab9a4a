"""`axoneme metrics`."""

from __future__ import annotations

import click

from axoneme.core.cli.output import Column, emit, output_option
from axoneme.core.cli.session import Session

_COLUMNS = (
    Column("name", "name"),
    Column("labels", lambda row: ", ".join(f"{k}={v}" for k, v in row["labels"].items()) or None),
    Column("value", lambda row: row.get("error") or f"{row['value']:g}", right=True),
    Column("about", "help"),
)


@click.command()
@output_option
@click.pass_obj
def command(session: Session, output: str) -> None:
    """Print the numbers of the agent and its plugins."""
    emit(session.call("metrics"), output, _COLUMNS, empty="there are no metrics")
