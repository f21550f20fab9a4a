"""The rows about workloads: what is wanted, what is there, who they are, and which address belongs to whom.

`workloads` holds the wish, `endpoints` what became of it, `identities` the label sets that have a number, and
`ipcache` the identity behind each prefix. Only `axoneme.core.workloads` writes them; everybody may read and watch.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from attrs import field, frozen

from axoneme.core.records import TableSpec

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


@frozen
class NamedPort:
    """A port that policies may call by name. The protocol is in capitals: TCP, UDP or SCTP."""

    port: int
    protocol: str = "TCP"


def _own_labels(labels: Mapping[str, str]) -> Mapping[str, str]:
    """Rows don't change, whatever becomes of the mapping that they were made from."""
    return dict(labels)


def _own_ports(ports: Mapping[str, NamedPort]) -> Mapping[str, NamedPort]:
    return dict(ports)


@frozen(kw_only=True)
class Workload:
    """A workload that somebody asked for.

    :param labels: its own labels, as given; `Endpoint.labels` has those that make its identity.
    :param netns: the path of the network namespace.
    :param managed: the namespace was made for this workload and goes with it.
    :param ipv4: the address that was asked for; None lets the pool choose.
    :param created_by: who asked (`cli`, `api`, a plugin's name), for people.
    """

    name: str
    namespace: str
    labels: Mapping[str, str] = field(factory=dict, converter=_own_labels)
    service_account: str = ""
    netns: str = ""
    managed: bool = True
    ipv4: IPv4Address | None = None
    ipv6: IPv6Address | None = None
    named_ports: Mapping[str, NamedPort] = field(factory=dict, converter=_own_ports)
    created_by: str = ""

    @property
    def uid(self) -> str:
        return f"{self.namespace}/{self.name}"


class EndpointState(enum.StrEnum):
    CREATING = "creating"
    READY = "ready"
    REMOVING = "removing"
    FAILED = "failed"


@frozen(kw_only=True)
class Endpoint:
    """A workload's presence in the network of this node.

    :param id: 1..65535, unique on this node while the endpoint lives.
    :param ifindex: of the host side; 0 while there is no interface yet.
    :param ifname: of the host side (`axo<id>`).
    :param mac: of the workload's side, `aa:bb:cc:dd:ee:ff`.
    :param node_mac: of the host side; the workload sends everything to it.
    :param labels: sorted `source:key=value` (`source:key` without a value): what its identity stands for.
    :param netns: the path of its network namespace.
    :param reason: why it failed, else empty.
    """

    id: int
    name: str
    namespace: str
    ifindex: int = 0
    ifname: str = ""
    mac: str = ""
    node_mac: str = ""
    ipv4: IPv4Address | None = None
    ipv6: IPv6Address | None = None
    identity: int = 0
    labels: tuple[str, ...] = ()
    netns: str = ""
    named_ports: Mapping[str, NamedPort] = field(factory=dict, converter=_own_ports)
    state: EndpointState = EndpointState.CREATING
    reason: str = ""

    @property
    def uid(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def addresses(self) -> tuple[Address, ...]:
        return tuple(address for address in (self.ipv4, self.ipv6) if address is not None)


@frozen(kw_only=True)
class Identity:
    """A label set and its number, the same for all workloads that carry it.

    :param labels: sorted `source:key=value` (`source:key` without a value).
    :param references: how many workloads of this node have it; reserved identities have none and stay.
    """

    number: int
    labels: tuple[str, ...]
    references: int = 0


class IpcacheSource(enum.StrEnum):
    """Who says what is behind a prefix, the most believable first."""

    HOST = "host"
    LOCAL = "local"
    CLUSTER = "cluster"
    POLICY = "policy"
    DEFAULT = "default"


@frozen(kw_only=True)
class IpcacheEntry:
    """The identity behind a prefix.

    :param node: the address of the node that it lives on; None for this node and for the world.
    :param key: the number of the key that encrypts towards it; 0 for none.
    :param shadowed: what less believable sources say about the same prefix.
    """

    prefix: Network
    identity: int
    source: IpcacheSource
    node: Address | None = None
    key: int = 0
    shadowed: tuple[IpcacheEntry, ...] = ()


WORKLOADS = TableSpec(name="workloads", row=Workload, key="uid", doc="workloads that were asked for")
ENDPOINTS = TableSpec(
    name="endpoints",
    row=Endpoint,
    key="id",
    indexes=("uid", "namespace", "identity", "ifindex", "labels", "addresses"),
    doc="workloads of this node and what became of them",
)
IDENTITIES = TableSpec(
    name="identities", row=Identity, key="number", indexes=("labels",), doc="label sets and their numbers"
)
IPCACHE = TableSpec(
    name="ipcache", row=IpcacheEntry, key="prefix", indexes=("identity",), doc="identities behind prefixes"
)

#: The tables of this package, for whoever makes the agent's `State`.
TABLES = (WORKLOADS, ENDPOINTS, IDENTITIES, IPCACHE)


def mac_bytes(mac: str) -> bytes:
    """The six bytes of `aa:bb:cc:dd:ee:ff`. Raises `ValueError` for anything else."""
    data = bytes.fromhex(mac.replace(":", ""))
    if len(data) != 6:
        raise ValueError(f"not a MAC address: {mac}")
    return data
