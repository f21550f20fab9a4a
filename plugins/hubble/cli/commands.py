"""`axoneme hubble status`, `list` and `watch`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from axoneme.core.errors import AxonemeError
from axoneme.plugins.hubble.cli import texts
from axoneme.plugins.hubble.cli.options import Server, server_options
from axoneme.plugins.hubble.proto import observer_pb2, peer_pb2
from axoneme.plugins.hubble.server.listening import HEALTH_NAME

_WAYS = ("json", "table", "wide")


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _output(default: str, *ways: str) -> Decorator:
    return click.option("-o", "--output", type=click.Choice(ways), default=default, help="How to print.")


def observer_stub(channel: Any) -> Any:
    from axoneme.plugins.hubble.proto import observer_pb2_grpc

    make: Any = observer_pb2_grpc.ObserverStub
    return make(channel)


@click.command()
@_output("compact", "compact", "dict", "json", "jsonpb", "tab", "table")
@server_options
def status(server: Server, output: str) -> None:
    """Show how a Hubble server is."""
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with server.stub(lambda channel: channel) as channel:
        request = health_pb2.HealthCheckRequest(service=HEALTH_NAME)
        state = health_pb2_grpc.HealthStub(channel).Check(request, timeout=server.timeout).status
        healthy = state == health_pb2.HealthCheckResponse.SERVING
        if output == "compact":
            name = health_pb2.HealthCheckResponse.ServingStatus.Name(state)
            click.echo(f"Healthcheck (via {server.shown}): {'Ok' if healthy else f'Unavailable: {name}'}")
        if not healthy:
            raise AxonemeError("not healthy")
        answer = observer_stub(channel).ServerStatus(
            observer_pb2.ServerStatusRequest(), timeout=server.timeout
        )
    form = {"jsonpb": "json", "tab": "table"}.get(output, output)
    click.echo(texts.status(answer, form), nl=False)


@click.command()
@_output("table", *_WAYS)
@server_options
def list_nodes(server: Server, output: str) -> None:
    """List the nodes that a relay has, or the one that answers."""
    with server.stub(observer_stub) as stub:
        answer = stub.GetNodes(observer_pb2.GetNodesRequest(), timeout=server.timeout)
    click.echo(texts.nodes(answer.nodes, output), nl=False)


@click.command()
@_output("table", *_WAYS)
@server_options
def list_namespaces(server: Server, output: str) -> None:
    """List the namespaces with flows in the last hour."""
    with server.stub(observer_stub) as stub:
        answer = stub.GetNamespaces(observer_pb2.GetNamespacesRequest(), timeout=server.timeout)
    click.echo(texts.namespaces(answer.namespaces, output), nl=False)


@click.command()
@server_options
def watch_peers(server: Server) -> None:
    """Watch the nodes of the mesh come and go. Ctrl-C ends it."""
    from axoneme.plugins.hubble.proto import peer_pb2_grpc

    with server.stub(peer_pb2_grpc.PeerStub) as stub:
        for change in stub.Notify(peer_pb2.NotifyRequest()):
            click.echo(texts.peer(change))
