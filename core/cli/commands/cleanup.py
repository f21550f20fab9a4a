"""`axoneme cleanup`."""

from __future__ import annotations

import click

from axoneme.core.cli.session import Session


@click.command()
@click.option("-y", "--yes", is_flag=True, help="Don't ask.")
@click.option("--cache", is_flag=True, help="The compiled programs as well.")
@click.pass_obj
def command(session: Session, yes: bool, cache: bool) -> None:
    """Remove everything that the agent made, and nothing else.

    Workloads with their interfaces and namespaces, links, programs, maps, pins, and the state folder's content. The agent
    must not be running. The configuration and the resources stay.
    """
    from axoneme.core import cleanup

    agent = session.config.settings.agent
    if not yes:
        click.confirm(
            f"Remove all that the agent {agent.name!r} made ({agent.state_dir}, {agent.bpffs})?", abort=True
        )
    for line in cleanup.run(session.config, cache=cache):
        click.echo(line)
