"""What is asked for, checked: from the words of a caller to a `Workload`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import cast

import attrs
from attrs import frozen

from axoneme.core.errors import AxonemeError
from axoneme.core.workloads.addresses import parse_address
from axoneme.core.workloads.endpoints import NamedPort, Workload
from axoneme.core.workloads.identities import check_labels
from axoneme.core.workloads.records import Record

_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,98}[a-z0-9])?")
_PORT_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?")
_PROTOCOLS = ("TCP", "UDP", "SCTP")


class WorkloadError(AxonemeError):
    """A workload that cannot be added, changed or removed as asked."""


@frozen(kw_only=True)
class WorkloadOptions:
    """What `Workloads` has to know.

    :param folder: the state folder.
    :param agent: tells the agents of one host apart; it is part of what marks an interface as ours.
    :param ipv4: the pool of addresses; None for none, but at least one family needs one.
    :param mtu: of the workloads' interfaces; 0 for that of the host's default route.
    :param link_prefix: of the names of host-side interfaces, at most 10 characters.
    :param namespace_prefix: of the names of the namespaces that we make.
    :param cluster: the name of the cluster, part of every identity.
    :param dual_stack_world: see `Ipcache`.
    :param host_netns: the network namespace that plays the host, for several nodes on one machine; empty for our own.
    """

    folder: Path
    agent: str = "axoneme"
    ipv4: str | IPv4Network | None = "10.244.0.0/16"
    ipv6: str | IPv6Network | None = "fd00:244::/64"
    mtu: int = 0
    link_prefix: str = attrs.field(
        default="axo", validator=attrs.validators.matches_re(r"[a-z][a-z0-9-]{0,9}")
    )
    namespace_prefix: str = "axo-"
    cluster: str = "default"
    dual_stack_world: bool = False
    host_netns: str = ""


def checked(
    name: str,
    namespace: str,
    labels: Mapping[str, str],
    *,
    default_netns: str,
    netns: str | None,
    ipv4: IPv4Address | str | None,
    ipv6: IPv6Address | str | None,
    named_ports: Mapping[str, NamedPort],
    service_account: str,
    created_by: str,
) -> Workload:
    """The workload that is asked for. Raises `WorkloadError`, `LabelError`, `PoolError` or `NamespaceError`.

    :param default_netns: the prefix of the name of the namespace that it gets when `netns` is None.
    """
    from axoneme.core.net.namespaces import locate

    _match(_NAME, name, "name of a workload")
    _match(_NAMESPACE, namespace, "namespace")
    if service_account:
        _match(_NAME, service_account, "service account")
    return Workload(
        name=name,
        namespace=namespace,
        labels=check_labels(labels),
        service_account=service_account,
        netns=locate(f"{default_netns}{namespace}-{name}" if netns is None else netns),
        managed=netns is None,
        ipv4=cast(IPv4Address | None, None if ipv4 is None else parse_address(ipv4, 4)),
        ipv6=cast(IPv6Address | None, None if ipv6 is None else parse_address(ipv6, 6)),
        named_ports={name: _checked_port(name, port) for name, port in named_ports.items()},
        created_by=created_by,
    )


def changed(record: Record, wish: Workload) -> Record:
    """The record of a workload that is there, with what a new wish changes.

    Raises `WorkloadError` when it asks for another namespace or address: that would interrupt the workload.
    """
    for what, there, asked in (
        ("network namespace", record.netns, wish.netns),
        ("IPv4 address", record.ipv4, wish.ipv4 or record.ipv4),
        ("IPv6 address", record.ipv6, wish.ipv6 or record.ipv6),
    ):
        if there != asked:
            raise WorkloadError(
                f"workload {wish.uid} is there already, with {what} {there}, not {asked}",
                hint="remove it first",
            )
    return attrs.evolve(
        record, labels=wish.labels, service_account=wish.service_account, named_ports=wish.named_ports
    )


def _match(pattern: re.Pattern[str], text: str, what: str) -> None:
    if not pattern.fullmatch(text):
        raise WorkloadError(f"{text!r} cannot be the {what}", hint="use small letters, digits and '-'")


def _checked_port(name: str, port: NamedPort) -> NamedPort:
    if not _PORT_NAME.fullmatch(name) or name.isdigit():
        raise WorkloadError(
            f"{name!r} cannot name a port", hint="use at most 15 small letters, digits and '-'"
        )
    protocol = port.protocol.upper()
    if protocol not in _PROTOCOLS or not 0 < port.port <= 0xFFFF:
        raise WorkloadError(
            f"port {name} is no port: {port.port}/{port.protocol}", hint=f"one of {_PROTOCOLS}"
        )
    return NamedPort(port.port, protocol)
