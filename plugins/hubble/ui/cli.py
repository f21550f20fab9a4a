"""`axoneme ui`."""

from __future__ import annotations

import click

from axoneme.core.cli.output import emit, output_option
from axoneme.core.cli.session import Session


@click.command()
@click.option("--open", "browser", is_flag=True, help="Open it in the browser of this desktop.")
@output_option
@click.pass_obj
def ui(session: Session, browser: bool, output: str) -> None:
    """Show who talks to whom, in a browser.

    The agent serves the page, from now on until it stops, at the address `plugins.hubble.ui.listen`. Prints where it is. Beyond
    loopback the printed address carries the token that the page asks for: it is a secret.
    """
    found = session.call("hubble.ui")
    address = f"{found['url']}#token={found['token']}" if found["token"] else found["url"]
    if browser:
        click.launch(address)
    if output == "table":
        click.echo(address)
    else:
        emit(found | {"address": address}, output, ())
