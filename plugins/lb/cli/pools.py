"""The command `axoneme lb pool list`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from axoneme.core.cli.output import Column, emit, output_option

if TYPE_CHECKING:
    from axoneme.core.cli.session import Session


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
