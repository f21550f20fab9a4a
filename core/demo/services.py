"""Through which services the demo asks, for what, and who has to answer: what `resources/services.yaml` says, by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

from attrs import frozen

from axoneme.core.demo import machine
from axoneme.core.demo.article import ALLOWED, OUTSIDE, Flow, Way, expected

Address = IPv4Address | IPv6Address

#: A row of the table `services`, as far as it is read here. Its class is a plugin's.
Service = Any


@frozen(kw_only=True)
class Call:
    """Requests to one address of a service, all the same.

    :param service: its name; `outside` is no service but the world itself.
    :param kind: of the address: `ClusterIP`, `NodePort`, `LoadBalancer`, or `world`.
    :param answers: who has to answer how often.
    :param sees: whom those who answer have to see: the client, or this node.
    """

    service: str
    kind: str
    port: int
    source: str
    ways: tuple[Way, ...]
    answers: Mapping[str, int]
    sees: str = "client"

    @property
    def requests(self) -> int:
        return sum(self.answers.values())

    def flow(self, family: int, way: Way) -> Flow:
        return Flow(self.source, self.service, self.port, family, way)

    def possible(self, active: Collection[str]) -> bool:
        """Whether no policy that is in force forbids it."""
        return all(expected(Flow(self.source, name, 8080, 4), active) == ALLOWED for name in self.answers)


CALLS: Final = (
    Call(
        service="api-service",
        kind="ClusterIP",
        port=80,
        source="frontend",
        ways=(Way.SOCKET, Way.PACKET),
        answers={"api-service-v1": 18, "api-service-v2": 2},
    ),
    Call(
        service="frontend",
        kind="NodePort",
        port=30080,
        source=OUTSIDE.name,
        ways=(Way.PACKET,),
        answers={"frontend": 5},
    ),
    Call(
        service="frontend",
        kind="LoadBalancer",
        port=80,
        source=OUTSIDE.name,
        ways=(Way.PACKET,),
        answers={"frontend": 5},
    ),
    Call(
        service=OUTSIDE.name,
        kind="world",
        port=8080,
        source="payment-service",
        ways=(Way.DIRECT,),
        answers={OUTSIDE.name: 5},
        sees="node",
    ),
)

#: How many workloads are behind each service, and the kinds of address that it has.
_SERVICES: Final = {
    "api-service": (2, {"ClusterIP"}),
    "backend-service": (1, {"ClusterIP"}),
    "payment-service": (1, {"ClusterIP"}),
    "order-service": (1, {"ClusterIP"}),
    "frontend": (1, {"ClusterIP", "NodePort", "LoadBalancer"}),
}


def ready(services: Iterable[Service], backends: Iterable[Any]) -> bool:
    """Whether the kernel has all services, with all workloads behind them.

    :param services: rows of the table `services`.
    :param backends: rows of the table `backends`.
    """
    kinds: Counter[tuple[str, str]] = Counter(
        (row.name, str(front.kind)) for row in services for front in row.frontends if front.number
    )
    behind = {row.name: len(row.addresses) for row in backends}
    return all(
        behind.get(name) == 2 * workloads and all(kinds[name, kind] >= 2 for kind in has)
        for name, (workloads, has) in _SERVICES.items()
    )


def addresses(services: Iterable[Service], name: str, kind: str) -> dict[int, Address]:
    """A service's addresses of a kind, by family; those of the world, and the node's for node ports, are the demo's own."""
    if kind == "world":
        return dict(machine.OUTSIDE)
    if kind == "NodePort":
        return dict(machine.NODE)
    return {
        front.address.version: front.address
        for row in services
        for front in row.frontends
        if row.name == name and str(front.kind) == kind
    }


def series(calls: Iterable[Call] = CALLS) -> Iterator[tuple[Call, Way, int]]:
    """Each call by each way and family: requests that are counted together."""
    for call in calls:
        for way in call.ways:
            yield from ((call, way, family) for family in (4, 6))
