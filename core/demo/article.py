"""What the article says: who the workloads are, which resources there are, and what they allow.

The expectations are written by hand from its text. Nothing here knows how policies are read or compiled: that is what
makes the comparison worth something.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Iterator, Mapping
from importlib import resources
from typing import Final

from attrs import field, frozen

NAMESPACE: Final = "production"

ALLOWED: Final = "allowed"
DROPPED: Final = "dropped"


@frozen
class App:
    """A workload of the article, with its labels (`app=<name>` where none are given), and the TCP ports that it serves."""

    name: str
    ports: tuple[int, ...] = (8080,)
    labels: Mapping[str, str] = field()

    @labels.default
    def _named(self) -> Mapping[str, str]:
        return {"app": self.name}


#: Somebody in the world, who is no workload.
OUTSIDE: Final = App("outside", labels={})

APPS: Final = (
    App("payment-service"),
    App("order-service"),
    App("api-gateway"),
    App("backend-service", (8080, 9090)),
    App("database", (5432,)),
    App("cache", (6379,)),
    App("frontend"),
    App("public-api"),
    App("api-service-v1", labels={"app": "api-service", "version": "v1"}),
    App("api-service-v2", labels={"app": "api-service", "version": "v2"}),
)


@frozen
class Article:
    """One of the article's resources, and the plugins without which it means nothing."""

    file: str
    plugins: tuple[str, ...]

    def missing(self, enabled: Collection[str]) -> tuple[str, ...]:
        """The plugins that it waits for."""
        return tuple(name for name in self.plugins if name not in enabled)

    def text(self) -> str:
        return (resources.files("axoneme.core.demo") / "resources" / self.file).read_text()


RESOURCES: Final = (
    Article("services.yaml", ("lb",)),
    Article("l4-lb-policy.yaml", ("policy",)),
    Article("mtls-authentication-policy.yaml", ("policy", "spire")),
    Article("cluster-wide-mtls.yaml", ("policy", "spire")),
    Article("l7-rate-limiting.yaml", ("policy", "envoy")),
    Article("l7-traffic-split.yaml", ("envoy",)),
)


@frozen
class Statement:
    """What a resource says about one workload in one direction: these peers and ports, and nothing else.

    Ports are always those of the side that serves.
    """

    file: str
    app: str
    direction: str
    only: frozenset[tuple[str, int]]

    def speaks_of(self, flow: Flow) -> bool:
        return self.app == (flow.destination if self.direction == "ingress" else flow.source)

    def allows(self, flow: Flow) -> bool:
        peer = flow.source if self.direction == "ingress" else flow.destination
        return (peer, flow.port) in self.only


#: `cluster-wide-mtls.yaml` takes no workload's way: it asks of everybody to show who they are.
STATEMENTS: Final = (
    Statement(
        "l4-lb-policy.yaml",
        "backend-service",
        "ingress",
        frozenset({("api-gateway", 8080), ("api-gateway", 9090)}),
    ),
    Statement(
        "l4-lb-policy.yaml", "backend-service", "egress", frozenset({("database", 5432), ("cache", 6379)})
    ),
    Statement(
        "mtls-authentication-policy.yaml", "payment-service", "ingress", frozenset({("order-service", 8080)})
    ),
    Statement("l7-rate-limiting.yaml", "public-api", "ingress", frozenset({("frontend", 8080)})),
)


class Way(enum.StrEnum):
    """How a request gets there: straight to the workload's address, or to its service's, exchanged at either place."""

    DIRECT = "direct"
    SOCKET = "socket"
    PACKET = "packet"


@frozen(order=True)
class Flow:
    """A request from one workload to a port of another one, by IPv4 or IPv6."""

    source: str
    destination: str
    port: int
    family: int
    way: Way = Way.DIRECT


def flows(ways: Collection[Way] = (Way.DIRECT,), apps: Iterable[App] = APPS) -> Iterator[Flow]:
    """All requests: between every two workloads, in both directions, to every port that is served, by each of these ways.

    Those that have a service of their own name are asked through it, too. So is the world, but not from there: it sees only
    what a service shows to it.
    """
    everybody = tuple(apps)
    world = (OUTSIDE,) if set(ways) - {Way.DIRECT} else ()
    for source in everybody:
        for destination in (*everybody, *world):
            if source != destination:
                named = destination.name in NAMED
                for port in destination.ports:
                    for way in ways if named else (Way.DIRECT,):
                        yield from (
                            Flow(source.name, destination.name, port, family, way) for family in (4, 6)
                        )


#: Workloads that are called by the name of a service, with the same ports.
NAMED: Final = frozenset({"backend-service", "payment-service", "order-service"})


def expected(flow: Flow, active: Collection[str]) -> str:
    """What must become of a request when these resource files are in force: `allowed` or `dropped`."""
    if flow.source == OUTSIDE.name and "cluster-wide-mtls.yaml" in active:
        return DROPPED  # who is no workload has nothing to show
    concerned = [each for each in STATEMENTS if each.file in active and each.speaks_of(flow)]
    return ALLOWED if all(each.allows(flow) for each in concerned) else DROPPED
