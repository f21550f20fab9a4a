"""`axoneme endpoint`, `identity`, `resource` and `workload list`."""

from __future__ import annotations

import click

from axoneme.core.cli.output import Column, emit, output_option
from axoneme.core.cli.session import Session

ENDPOINTS = (
    Column("id", "id", right=True),
    Column("namespace", "namespace"),
    Column("name", "name"),
    Column("state", "state"),
    Column("identity", "identity", right=True),
    Column("ipv4", "ipv4"),
    Column("ipv6", "ipv6"),
    Column("interface", "ifname"),
    Column("reason", lambda row: row["reason"] or None),
)
_IDENTITIES = (
    Column("identity", "identity", right=True),
    Column("endpoints", "references", right=True),
    Column("labels", "labels"),
)
_RESOURCES = (
    Column("kind", "kind"),
    Column("namespace", lambda row: row["namespace"] or None),
    Column("name", "name"),
    Column("status", "status"),
    Column("where", "where"),
    Column("problems", lambda row: "; ".join(row["problems"]) or None),
)


@click.command()
@output_option
@click.pass_obj
def endpoint_list(session: Session, output: str) -> None:
    """List the workloads of this node and what became of them."""
    emit(session.call("endpoint.list"), output, ENDPOINTS, empty="there are no workloads")


@click.command()
@click.argument("name")
@output_option
@click.pass_obj
def endpoint_get(session: Session, name: str, output: str) -> None:
    """Show one endpoint, by id, name or NAMESPACE/NAME."""
    emit(session.call("endpoint.get", name=name), output)


@click.command()
@output_option
@click.pass_obj
def identity_list(session: Session, output: str) -> None:
    """List label sets and their numbers. Those below 256 are reserved."""
    emit(session.call("identity.list"), output, _IDENTITIES)


@click.command()
@click.argument("number", type=int)
@output_option
@click.pass_obj
def identity_get(session: Session, number: int, output: str) -> None:
    """Show one identity and the endpoints that have it."""
    emit(session.call("identity.get", number=number), output)


@click.command()
@click.option("--kind", default="", help="Only this kind.")
@click.option("--problems", is_flag=True, help="Only those that have problems.")
@output_option
@click.pass_obj
def resource_list(session: Session, kind: str, problems: bool, output: str) -> None:
    """List the resources, whether they are in effect, and what is wrong with them."""
    rows = session.call("resource.list", kind=kind, problems=problems)
    emit(
        rows, output, _RESOURCES, empty="no resource has a problem" if problems else "there are no resources"
    )
