"""The policy language as values: what the parsers make and the engine compiles.

Everything here is frozen, hashable where it is used as a key, and free of any notion of kernel, tables or files, except
for the place (`Where`) that each rule remembers so that it can be named.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from attrs import Factory, field, frozen

from axoneme.core.errors import Where

Network = IPv4Network | IPv6Network

#: The label that holds a workload's namespace, and the prefix of the labels copied from that namespace.
NAMESPACE_KEY = "io.kubernetes.pod.namespace"
NAMESPACE_LABELS_PREFIX = "io.cilium.k8s.namespace.labels."
CLUSTER_KEY = "io.cilium.k8s.policy.cluster"
#: The label, source `cidrgroup`, that a prefix gets from each CiliumCIDRGroup that lists it.
CIDR_GROUP_KEY = "io.cilium.policy.cidrgroupname/"


def derived(make: Callable[[Any], Any]) -> Any:
    """A field that follows from the others, worked out once, when the object is made."""
    return field(default=Factory(make, takes_self=True), init=False, eq=False, repr=False)


class Direction(enum.StrEnum):
    EGRESS = "egress"
    INGRESS = "ingress"


class Operator(enum.StrEnum):
    """Operators of a selector's requirement; `EQUALS` is what matchLabels is made of."""

    EQUALS = "="
    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


@frozen
class Requirement:
    """One condition on a label key. Source `any` looks at the labels of every source.

    `NOT_IN` and `DOES_NOT_EXIST` also hold when the key is absent.
    """

    source: str
    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        name = f"{self.source}:{self.key}"
        if self.operator is Operator.EQUALS:
            return f"{name}={self.values[0]}"
        if self.operator in (Operator.IN, Operator.NOT_IN):
            return f"{name} {self.operator.value} ({' '.join(self.values)})"
        return f"{name} {self.operator.value}"


@frozen
class Selector:
    """A conjunction of requirements over label sets. No requirement at all selects everybody."""

    requirements: tuple[Requirement, ...] = ()
    #: The canonical text; two rules with the same text and port are merged before anything else.
    text: str = derived(lambda one: "{" + ", ".join([part.text for part in one.requirements]) + "}")

    @property
    def is_wildcard(self) -> bool:
        return not self.requirements

    def also(self, requirements: tuple[Requirement, ...]) -> Selector:
        return Selector(self.requirements + requirements)


@frozen
class CidrSelector:
    """The world identities whose prefix lies inside `base` (or that carry the labels `base` asks for), less `excepts`."""

    base: Network | Selector
    excepts: tuple[Network, ...] = ()
    text: str = derived(lambda one: _cidr_text(one))

    @property
    def is_wildcard(self) -> bool:
        return False


def _cidr_text(selector: CidrSelector) -> str:
    base = selector.base.text if isinstance(selector.base, Selector) else f"cidr:{selector.base}"
    return base + "".join(f" except {prefix}" for prefix in selector.excepts)


Peer = Selector | CidrSelector
WILDCARD = Selector()


class Protocol(enum.IntEnum):
    """IP protocol numbers as they stand in the decision tables; `ANY` is an entry for every protocol."""

    ANY = 0
    ICMP = 1
    TCP = 6
    UDP = 17
    ICMPV6 = 58
    SCTP = 132


#: What a rule's absent protocol, or `ANY`, means: never ICMP.
TRANSPORTS = (Protocol.TCP, Protocol.UDP, Protocol.SCTP)


@frozen(order=True)
class Ports:
    """A range of destination ports (or ICMP types) of one protocol, or a named port.

    `last` 0 stands for all ports from `first` 0; `Protocol.ANY` only occurs with all ports (an L3 rule).
    """

    protocol: Protocol
    first: int = 0
    last: int = 0
    name: str = ""

    def __str__(self) -> str:
        if self.name:
            return f"{self.name}/{self.protocol.name}"
        if self.first == self.last == 0:
            return f"all/{self.protocol.name}"
        span = str(self.first) if self.last == self.first else f"{self.first}-{self.last}"
        return f"{span}/{self.protocol.name}"


ALL_PORTS = Ports(Protocol.ANY)


class Auth(enum.IntEnum):
    """Authentication modes in their order of precedence; the numbers stand in the kernel's table, 0 for none."""

    DISABLED = 1
    REQUIRED = 2
    ALWAYS_FAIL = 3

    @property
    def text(self) -> str:
        return ("disabled", "required", "test-always-fail")[self - 1]


@frozen
class L7:
    """What a proxy has to enforce on traffic that a rule allows.

    :param kind: `http`, `kafka`, `dns`, `tls`, `crd` (a named listener), or the name of another parser.
    :param rules: canonical JSON texts, one per rule; empty with `wildcard` false means that only the kind matters.
    :param wildcard: some rule without L7 restriction was merged in, so everything passes (through the proxy).
    :param listener: qualified name of the listener, for `crd`.
    :param priority: 1 (strongest) to 126; the lower number takes the redirect.
    :param context: canonical JSON of TLS contexts and server names.
    :param shared: the kind of the redirect that rules of other selectors make this port share, else empty.
    """

    kind: str
    rules: tuple[str, ...] = ()
    wildcard: bool = False
    listener: str = ""
    priority: int = 0
    context: tuple[str, ...] = ()
    shared: str = ""

    @property
    def redirect(self) -> str:
        """The kind of the redirect that the traffic takes."""
        return self.shared or self.kind


@frozen
class PortRule:
    """Ports together with what a proxy has to do on them."""

    ports: tuple[Ports, ...]
    l7: L7 | None = None


@frozen
class ServiceRef:
    """An element of toServices: the service of this name, or those of the namespace that the selector selects.

    :param namespace: empty for all namespaces.
    """

    namespace: str
    name: str = ""
    selector: Selector | None = None


@frozen
class PeerRule:
    """One element of a direction's allow or deny list.

    :param path: the field's path in the object, e.g. `spec.ingress[0]`.
    :param peers: None for anybody, `()` for nobody; `endpoint_peers` of them, at the front, take part in `requires`.
    :param ports: None for an L3 rule; `()` allows nothing.
    :param services: services whose backends are peers too, once they are known; see services.py.
    :param requires: requirements that hold for every endpoint peer of every rule (of the same verdict) of the subject.
    """

    path: str
    deny: bool
    peers: tuple[Peer, ...] | None
    ports: tuple[PortRule, ...] | None
    endpoint_peers: int = 0
    requires: tuple[Requirement, ...] = ()
    services: tuple[ServiceRef, ...] = ()
    auth: Auth | None = None
    where: Where | None = field(default=None, eq=False)
    text: str = field(default="", eq=False)


@frozen
class DirectionRules:
    """The rules of one direction of one spec.

    :param default_deny: whether this spec turns default deny on; it has an effect only where `rules` is not empty.
    """

    rules: tuple[PeerRule, ...] = ()
    default_deny: bool = True


@frozen
class Spec:
    """One rule set with its subject: an object has one, or with `specs` several."""

    path: str
    subject: Selector
    egress: DirectionRules
    ingress: DirectionRules
    node: bool = False

    def direction(self, direction: Direction) -> DirectionRules:
        return self.egress if direction is Direction.EGRESS else self.ingress


@frozen
class Policy:
    """One policy object, whatever its kind.

    :param audit: it is only rehearsed.
    """

    kind: str
    namespace: str
    name: str
    specs: tuple[Spec, ...]
    where: Where | None = field(default=None, eq=False)
    audit: bool = False

    @property
    def key(self) -> str:
        """`kind/namespace/name`, with an empty namespace for what is cluster-wide."""
        return f"{self.kind}/{self.namespace}/{self.name}"


@frozen
class CidrGroup:
    """A CiliumCIDRGroup: prefixes under a name, and the labels (`key=value`, source `cidrgroup`) they get from it."""

    name: str
    prefixes: tuple[Network, ...]
    labels: tuple[tuple[str, str], ...] = ()
    where: Where | None = field(default=None, eq=False)
