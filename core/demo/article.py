"""What the article says: who the workloads are, which resources there are, and what they allow.

The expectations are written by hand from its text. Nothing here knows how policies are read or compiled: that is what
makes the comparison worth something.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from importlib import resources
from typing import Final

from attrs import frozen

NAMESPACE: Final = "production"

ALLOWED: Final = "allowed"
DROPPED: Final = "dropped"


@frozen
class App:
    """A workload of the article, with the label `app=<name>`, and the TCP ports that it serves."""

    name: str
    ports: tuple[int, ...] = (8080,)


APPS: Final = (
    App("payment-service"),
    App("order-service"),
    App("api-gateway"),
    App("backend-service", (8080, 9090)),
    App("database", (5432,)),
    App("cache", (6379,)),
    App("frontend"),
    App("public-api"),
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


#: `cluster-wide-mtls.yaml` takes nobody's way: it asks of everybody to show who they are.
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


@frozen(order=True)
class Flow:
    """A request from one workload to a port of another one, by IPv4 or IPv6."""

    source: str
    destination: str
    port: int
    family: int


def flows(apps: Iterable[App] = APPS) -> Iterator[Flow]:
    """All requests: between every two workloads, in both directions, to every port that is served."""
    everybody = tuple(apps)
    for source in everybody:
        for destination in everybody:
            if source != destination:
                for port in destination.ports:
                    yield from (Flow(source.name, destination.name, port, family) for family in (4, 6))


def expected(flow: Flow, active: Collection[str]) -> str:
    """What must become of a request when these resource files are in force: `allowed` or `dropped`."""
    concerned = [each for each in STATEMENTS if each.file in active and each.speaks_of(flow)]
    return ALLOWED if all(each.allows(flow) for each in concerned) else DROPPED
