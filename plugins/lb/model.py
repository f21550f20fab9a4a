"""What people and clusters say about services, parsed: the values that everything else in this plugin works on."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NamedTuple

from attrs import field, frozen

from axoneme.core.errors import Where
from axoneme.plugins.lb.maps import Algorithm

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: (namespace, name)
Name = tuple[str, str]


class Protocol(enum.IntEnum):
    """The number in the IP header; the name is what Kubernetes calls it."""

    TCP = 6
    UDP = 17
    SCTP = 132


class ServiceType(enum.StrEnum):
    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"
    EXTERNAL_NAME = "ExternalName"


class FrontendKind(enum.StrEnum):
    """What an address of a service is, in the words of `service list`."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"
    EXTERNAL_IPS = "ExternalIPs"
    HOST_PORT = "HostPort"
    LOCAL_REDIRECT = "LocalRedirect"

    @property
    def external(self) -> bool:
        """Whether those who are not on this node may use it, too."""
        return self not in (FrontendKind.CLUSTER_IP, FrontendKind.LOCAL_REDIRECT)


class Distribution(enum.StrEnum):
    """`spec.trafficDistribution`; see KEP-4444 and KEP-3015."""

    NONE = ""
    PREFER_CLOSE = "PreferClose"
    PREFER_SAME_ZONE = "PreferSameZone"
    PREFER_SAME_NODE = "PreferSameNode"


class Origin(enum.StrEnum):
    """Where a service comes from."""

    RESOURCE = "resource"
    LOCAL = "local"


@frozen
class Port:
    """A port of a service.

    :param target: of the backends: a number, or the name that a workload gives it. 0: the service's own.
    :param node_port: 0 for none.
    """

    port: int
    protocol: Protocol = Protocol.TCP
    name: str = ""
    target: int | str = 0
    node_port: int = 0

    @property
    def text(self) -> str:
        return f"{self.port}/{self.protocol.name}"


@frozen
class Pool:
    """What a service wishes of address pools.

    :param requested: these addresses, if any are named.
    :param sharing_key: services with the same key may share an address when their ports differ.
    :param sharing_namespaces: of the other services; `*` is all. Without any, its own.
    """

    requested: tuple[Address, ...] = ()
    sharing_key: str = ""
    sharing_namespaces: tuple[str, ...] = ()


@frozen(kw_only=True)
class Service:
    """A service, as it was asked for.

    :param cluster_ips: empty for a headless one.
    :param affinity: seconds for which a client keeps its backend, 0: it does not.
    :param internal_local: traffic from this node goes to backends of this node only.
    :param weights: by address or name of a backend; others have 1. 0: it gets no new connections.
    :param algorithm: None for what the configuration says.
    :param maglev_size: 0 for what the configuration says.
    :param exposed: the kinds of address that it has; None: all.
    """

    namespace: str
    name: str
    type: ServiceType = ServiceType.CLUSTER_IP
    origin: Origin = Origin.RESOURCE
    labels: Mapping[str, str] = field(factory=dict)
    selector: Mapping[str, str] = field(factory=dict)
    cluster_ips: tuple[Address, ...] = ()
    headless: bool = False
    external_ips: tuple[Address, ...] = ()
    families: tuple[int, ...] = ()
    ports: tuple[Port, ...] = ()
    affinity: int = 0
    internal_local: bool = False
    external_local: bool = False
    health_check_port: int = 0
    distribution: Distribution = Distribution.NONE
    source_ranges: tuple[Network, ...] = ()
    publish_not_ready: bool = False
    load_balancer_class: str = ""
    pool: Pool = Pool()
    weights: Mapping[str, int] = field(factory=dict)
    algorithm: Algorithm | None = None
    maglev_size: int = 0
    dsr: bool | None = None
    exposed: frozenset[FrontendKind] | None = None
    where: Where | None = None

    @property
    def key(self) -> Name:
        return (self.namespace, self.name)

    @property
    def uid(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def own_families(self) -> tuple[int, ...]:
        """Those that it says it has; empty if it says nothing."""
        return self.families or tuple(dict.fromkeys(one.version for one in self.cluster_ips))


class Endpoint(NamedTuple):
    """A backend of a slice, without its port. There are so many that it matters how fast one is made.

    :param ready: it wants connections.
    :param serving: it would answer them, even if it is `terminating`.
    :param node: empty where it is not known.
    :param zones: for whose clients it is meant (hints); empty for no hint.
    :param target: namespace and name of the workload behind it.
    """

    addresses: tuple[Address, ...]
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    node: str = ""
    zone: str = ""
    zones: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    target: str = ""


@frozen
class SlicePort:
    """A port of all backends of a slice; 0: every port of the service as it is."""

    port: int
    protocol: Protocol = Protocol.TCP
    name: str = ""


@frozen(kw_only=True)
class Slice:
    """Some backends of one service.

    :param weight: of each of them, if their service says nothing else.
    """

    namespace: str
    name: str
    service: str
    family: int
    ports: tuple[SlicePort, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    weight: int = 1
    where: Where | None = None


@frozen
class Block:
    """Addresses from `first` to `last`, both included."""

    first: Address
    last: Address

    def __contains__(self, address: Address) -> bool:
        return address.version == self.first.version and self.first <= address <= self.last  # type: ignore[operator]


@frozen
class Requirement:
    """One condition on labels. `operator` is In, NotIn, Exists or DoesNotExist."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def holds(self, labels: Mapping[str, str]) -> bool:
        if self.operator == "Exists":
            return self.key in labels
        if self.operator == "DoesNotExist":
            return self.key not in labels
        if self.operator == "In":
            return labels.get(self.key) in self.values
        return labels.get(self.key) not in self.values


@frozen(kw_only=True)
class AddressPool:
    """Addresses that services of the type LoadBalancer get."""

    name: str
    blocks: tuple[Block, ...] = ()
    selector: tuple[Requirement, ...] = ()
    disabled: bool = False
    where: Where | None = None


@frozen
class HostPort:
    """A port of a pod that is a port of its node.

    :param host_ip: of the node; None for all its addresses.
    """

    port: int
    host_port: int
    protocol: Protocol = Protocol.TCP
    host_ip: Address | None = None


@frozen(kw_only=True)
class Pod:
    """A pod with its host ports.

    :param node: empty where it is not known.
    :param addresses: for one that is no workload of this node.
    """

    namespace: str
    name: str
    node: str = ""
    addresses: tuple[Address, ...] = ()
    ports: tuple[HostPort, ...] = ()
    where: Where | None = None

    @property
    def key(self) -> Name:
        return (self.namespace, self.name)


@frozen(kw_only=True)
class Redirect:
    """A local redirect policy: traffic for an address, or for a service, goes to workloads of this node.

    :param service: whose ClusterIPs are redirected; or else
    :param address: that is.
    :param ports: of the frontend, with the name or number of the backends' port as their target.
    :param skip_backends: the backends themselves reach the address.
    """

    namespace: str
    name: str
    service: str = ""
    address: Address | None = None
    ports: tuple[Port, ...] = ()
    selector: tuple[Requirement, ...] = ()
    backend_ports: tuple[Port, ...] = ()
    skip_backends: bool = False
    where: Where | None = None

    @property
    def key(self) -> Name:
        return (self.namespace, self.name)
