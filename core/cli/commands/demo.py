"""`axoneme demo`."""

from __future__ import annotations

import click

from axoneme.core.cli.output import output_option
from axoneme.core.cli.session import Session


@click.command()
@click.option("--keep", is_flag=True, help="Leave it running until Ctrl-C, and say what to look at.")
@click.option(
    "--name",
    default="demo",
    show_default=True,
    help="Its name: `demo`, or `demo-` and something, for several at a time.",
)
@output_option
@click.pass_obj
def command(session: Session, keep: bool, name: str, output: str) -> int:
    """Enforce a service mesh's policy between real workloads, and show it.

    Starts an agent of its own, makes eight workloads in network namespaces, applies the policies of an article about
    service meshes, and sends requests between all of them. The exit code is 0 when the kernel lets pass and drops exactly
    what the article says. Everything that was made is removed in the end, also by Ctrl-C.

    It needs root. The machine's configuration file is not used; the environment and --set are.
    """
    from axoneme.core.demo.place import Place
    from axoneme.core.demo.show import Options, show

    options = Options(
        keep=keep,
        output=output,
        sets=session.sets,
        no_plugins=session.no_plugins,
        verbose=session.verbose,
    )
    return show(Place(name), options)
