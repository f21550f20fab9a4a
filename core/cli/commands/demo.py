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
    """Run a service mesh between real workloads, and show it.

    Starts an agent of its own, makes ten workloads in network namespaces and a host outside, applies the policies of an
    article about service meshes and services of ours, and sends requests between all of them, directly and through services.
    The exit code is 0 when the kernel lets pass and drops exactly what the article says, each service is answered by whom it
    should be, and Hubble saw it. Everything that was made is removed in the end, also by Ctrl-C.

    It needs root, and keeps to network namespaces of its own: the machine's devices and settings are not touched. Nor is the
    machine's configuration file used; the environment and --set are.
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
