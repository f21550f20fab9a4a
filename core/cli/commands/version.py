"""`axoneme version`."""

from __future__ import annotations

import os

import click

from axoneme.core.api.client import NotRunningError
from axoneme.core.cli.output import emit, output_option
from axoneme.core.cli.session import Session
from axoneme.core.records import API_VERSION
from axoneme.core.version import version


@click.command()
@output_option
@click.pass_obj
def command(session: Session, output: str) -> None:
    """Show the versions of this program, of the plugin API, of the kernel, and of the running agent."""
    try:
        running = session.call("status")["agent"]["version"]
    except NotRunningError:
        running = None
    rows = {"axoneme": version(), "plugin_api": API_VERSION, "kernel": os.uname().release, "agent": running}
    emit(rows, output)
