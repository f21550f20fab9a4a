"""`axoneme workload`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from axoneme.core.api.wire import NotFoundError
from axoneme.core.cli.output import emit, output_option
from axoneme.core.cli.session import Session
from axoneme.core.errors import AxonemeError

F = TypeVar("F", bound=Callable[..., Any])

#: As `axoneme workload` writes into `Workload.created_by`.
CLI = "cli"


def _pairs(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """`a=b` texts as a mapping; several may stand in one, with commas."""
    pairs = [pair for value in values for pair in value.split(",") if pair]
    for pair in pairs:
        if "=" not in pair:
            raise click.BadParameter(f"{pair!r} is not of the form key=value", ctx, parameter)
    return dict(pair.split("=", 1) for pair in pairs)


def _ports(
    ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
    """`http=80/TCP` texts as named ports."""
    ports = {}
    for name, text in _pairs(ctx, parameter, values).items():
        number, _, protocol = text.partition("/")
        if not number.isdigit():
            raise click.BadParameter(f"{text!r} is not a port such as 80 or 53/UDP", ctx, parameter)
        ports[name] = {"port": int(number), "protocol": (protocol or "tcp").upper()}
    return ports


def _workload_options(function: F) -> F:
    """What `add` and `run` have in common."""
    options = (
        click.argument("name"),
        click.option("-n", "--namespace", default="default", show_default=True, help="Its namespace."),
        click.option(
            "-l", "--label", "labels", multiple=True, callback=_pairs, metavar="KEY=VALUE", help="A label."
        ),
        click.option("--ipv4", help="An address of the pool; chosen if not given."),
        click.option("--ipv6", help="An address of the pool; chosen if not given."),
        click.option(
            "--port",
            "ports",
            multiple=True,
            callback=_ports,
            metavar="NAME=PORT[/PROTO]",
            help="A named port.",
        ),
        click.option("--service-account", default="", help="Its service account."),
    )
    for option in reversed(options):
        function = option(function)
    return function


@click.command()
@_workload_options
@click.option("--netns", help="Path or name of an existing network namespace; without it one is made.")
@output_option
@click.pass_obj
def add(session: Session, /, output: str, **wish: Any) -> None:
    """Connect a network namespace as a workload.

    Adding one that is there changes its labels.
    """
    emit(session.call("workload.add", created_by=CLI, **wish), output)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("-n", "--namespace", default="default", show_default=True, help="Their namespace.")
@click.pass_obj
def remove(session: Session, names: tuple[str, ...], namespace: str) -> None:
    """Disconnect workloads. A namespace that was made for one goes with it."""
    for name in names:
        answer = session.call("workload.remove", name=name, namespace=namespace)
        click.echo(f"removed {answer['removed']}")


@click.command()
@_workload_options
@click.option("--keep", is_flag=True, help="Leave the workload there when the command ends.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
@click.pass_obj
def run(session: Session, /, keep: bool, command: tuple[str, ...], **wish: Any) -> int:
    """Run a command as a workload: `axoneme workload run web -l app=web -- python3 -m http.server`.

    The workload is added for it, unless it is there, and removed when the command ends. The exit code is the command's.
    """
    from axoneme.core.workloads.run import RunError
    from axoneme.core.workloads.run import run as run_in

    uid = f"{wish['namespace']}/{wish['name']}"
    present = _present(session, uid)
    endpoint = (
        present if present and not wish["labels"] else session.call("workload.add", created_by=CLI, **wish)
    )
    try:
        return run_in(endpoint["netns"], command)
    except RunError as error:
        click.echo(f"error: {error}", err=True)
        return error.code
    finally:
        if not keep and present is None:
            _remove(session, wish["name"], wish["namespace"])


def _present(session: Session, uid: str) -> dict[str, Any] | None:
    try:
        endpoint: dict[str, Any] = session.call("endpoint.get", name=uid)
    except NotFoundError:
        return None
    return endpoint


def _remove(session: Session, name: str, namespace: str) -> None:
    """The command's own exit code is what counts, so that a failure here is only said."""
    try:
        session.call("workload.remove", name=name, namespace=namespace)
    except AxonemeError as error:
        click.echo(f"warning: {namespace}/{name} was not removed: {error}", err=True)
