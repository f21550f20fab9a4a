"""The commands `axoneme service add` and `delete`: services that are in no file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from axoneme.plugins.lb.annotations import ALGORITHMS
from axoneme.plugins.lb.model import Protocol

if TYPE_CHECKING:
    from axoneme.core.cli.session import Session

Row = dict[str, Any]


@click.command(name="add")
@click.argument("name", metavar="[NAMESPACE/]NAME")
@click.option(
    "--vip",
    "vips",
    multiple=True,
    metavar="ADDRESS:PORT",
    help="Where it is reached. Several, if the port is the same.",
)
@click.option(
    "--backend", "backends", multiple=True, metavar="ADDRESS:PORT[=WEIGHT]", help="Who is behind it. Several."
)
@click.option(
    "-l", "--selector", multiple=True, metavar="KEY=VALUE", help="Or: workloads of this node with this label."
)
@click.option("--target-port", default=0, help="The port of the workloads, if it is another one.")
@click.option(
    "--protocol",
    type=click.Choice([*Protocol.__members__], case_sensitive=False),
    default="TCP",
    show_default=True,
)
@click.option("--node-port", default=0, help="Also at this port of the node's addresses.")
@click.option("--external", is_flag=True, help="Those who are not on this node may use it, too.")
@click.option(
    "--algorithm",
    type=click.Choice([*ALGORITHMS]),
    help="How a backend is chosen; the default is in the configuration.",
)
@click.option("--affinity", default=0, metavar="SECONDS", help="For how long a client keeps its backend.")
@click.pass_obj
def service_add(session: Session, name: str, vips: tuple[str, ...], backends: tuple[str, ...], selector: tuple[str, ...], target_port: int, protocol: str, node_port: int, external: bool, algorithm: str | None, affinity: int) -> None:  # fmt: skip
    """Add a service that is in no file, or replace it. It stays, over restarts, until it is deleted.

    axoneme service add web --vip 10.96.0.10:80 --backend 10.244.0.2:8080 --backend 10.244.0.3:8080=2
    """
    namespace, _, own = name.rpartition("/")
    places = [_place(vip, "--vip") for vip in vips]
    if len({port for _, port in places}) > 1:
        raise click.BadParameter("all addresses of a service have the same port", param_hint="--vip")
    if bool(backends) == bool(selector):
        raise click.UsageError("say --backend or --selector: one of them is who is behind the service")
    if not places and not (node_port and target_port):
        raise click.UsageError("say --vip, or --node-port with --target-port")
    session.call(
        "service.add",
        namespace=namespace or "default",
        name=own,
        vips=[address for address, _ in places],
        port=places[0][1] if places else target_port,
        protocol=protocol.upper(),
        node_port=node_port,
        external=external,
        backends=[_backend(text) for text in backends],
        selector=_labels(selector),
        target=target_port,
        algorithm=algorithm or "",
        affinity=affinity,
    )
    click.echo(f"added {namespace or 'default'}/{own}")


@click.command(name="delete")
@click.argument("names", nargs=-1, required=True, metavar="[NAMESPACE/]NAME...")
@click.pass_obj
def service_delete(session: Session, names: tuple[str, ...]) -> None:
    """Delete services that `axoneme service add` made."""
    for name in names:
        namespace, _, own = name.rpartition("/")
        answer = session.call("service.delete", name=own, namespace=namespace or "default")
        click.echo(f"deleted {answer['deleted']}")


def _place(text: str, option: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal():
        raise click.BadParameter(
            f"{text!r} is not of the form ADDRESS:PORT or [ADDRESS]:PORT", param_hint=option
        )
    return host.strip("[]"), int(port)


def _backend(text: str) -> Row:
    rest, equals, weight = text.partition("=")
    if equals and not weight.isdecimal():
        raise click.BadParameter(f"{weight!r} is no weight", param_hint="--backend")
    address, port = _place(rest, "--backend")
    return {"address": address, "port": port, "weight": int(weight) if equals else 1}


def _labels(texts: tuple[str, ...]) -> dict[str, str]:
    pairs = [pair for text in texts for pair in text.split(",") if pair]
    for pair in pairs:
        if "=" not in pair:
            raise click.BadParameter(f"{pair!r} is not of the form KEY=VALUE", param_hint="--selector")
    return dict(pair.split("=", 1) for pair in pairs)
