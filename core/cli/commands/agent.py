"""`axoneme agent` and `axoneme reload`."""

from __future__ import annotations

from pathlib import Path

import click

from axoneme.core.cli.session import Session


@click.command()
@click.option(
    "--config",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The configuration file, as before the command.",
)
@click.pass_obj
def command(session: Session, file: Path | None) -> None:
    """Run the agent in the foreground.

    Ctrl-C or SIGTERM stop it; traffic flows on under the last known state. SIGHUP, or a changed configuration file,
    make it apply the configuration. Under systemd it says when it is ready and that it is alive.
    """
    from axoneme.core import daemon

    if file is not None:
        session.use(file)
    daemon.main(session.config, no_plugins=session.no_plugins, verbose=session.verbose)


@click.command()
@click.option("--force", is_flag=True, help="Even if the configuration did not change.")
@click.pass_obj
def reload(session: Session, force: bool) -> None:
    """Make a running agent apply its configuration as it is now.

    If the new one cannot be used, the running one stays, and the reason is printed.
    """
    answer = session.call("reload", force=force)
    changed = "is in force" if answer["changed"] else "goes on; nothing changed"
    click.echo(f"generation {answer['generation']} {changed}")
