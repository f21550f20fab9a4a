"""The plugin's public tables: which services there are, and who is behind them. Other plugins read and watch them."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from attrs import field, frozen

from axoneme.core.errors import Where
from axoneme.core.records import TableSpec
from axoneme.core.state.resources import Problem
from axoneme.plugins.lb.model import Address, FrontendKind, Origin


@frozen
class Frontend:
    """An address and port that a service is reached by.

    :param protocol: TCP, UDP or SCTP.
    :param number: of its row in the kernel (the first, if it has one for each scope); in events it is `service`. 0: none.
    """

    address: Address
    port: int
    protocol: str
    kind: FrontendKind
    port_name: str = ""
    number: int = 0


@frozen(kw_only=True)
class ServiceRow:
    """A service.

    :param source: `resource` or `local` (`axoneme service add`).
    :param type: ClusterIP, NodePort, LoadBalancer or ExternalName.
    :param labels: its own, as Kubernetes writes them.
    :param selector: of the workloads behind it; empty where something else says who they are.
    :param addresses: all addresses of `frontends`; indexed.
    :param problems: what of it has no effect, and why. The rest has.
    """

    namespace: str
    name: str
    source: Origin
    type: str
    labels: Mapping[str, str] = field(factory=dict)
    selector: Mapping[str, str] = field(factory=dict)
    frontends: tuple[Frontend, ...] = ()
    addresses: tuple[Address, ...] = ()
    problems: tuple[Problem, ...] = ()
    where: Where | None = None

    @property
    def uid(self) -> str:
        return f"{self.namespace}/{self.name}"


class BackendState(enum.StrEnum):
    """ACTIVE: it gets new connections. TERMINATING: it keeps those that it has, and gets new ones only where nobody else is
    left. UNREADY and DRAINED (a weight of 0): it gets none."""

    ACTIVE = "active"
    TERMINATING = "terminating"
    UNREADY = "unready"
    DRAINED = "drained"


@frozen
class Backend:
    """One backend of a port of a service.

    :param number: in the kernel; 0: none.
    :param port_name: of the service's port that leads to it.
    :param target: `namespace/name` of the workload, where it is known.
    """

    address: Address
    port: int
    protocol: str
    port_name: str = ""
    state: BackendState = BackendState.ACTIVE
    weight: int = 1
    node: str = ""
    zone: str = ""
    target: str = ""
    number: int = 0


@frozen(kw_only=True)
class BackendsRow:
    """Everybody behind one service, whether used or not.

    :param addresses: all addresses of `backends`.
    """

    namespace: str
    name: str
    backends: tuple[Backend, ...] = ()
    addresses: tuple[Address, ...] = ()

    @property
    def uid(self) -> str:
        return f"{self.namespace}/{self.name}"


SERVICES = TableSpec(
    name="services",
    row=ServiceRow,
    key=("namespace", "name"),
    indexes=("namespace", "addresses"),
    doc="services, and the addresses that they are reached by",
)
BACKENDS = TableSpec(
    name="backends",
    row=BackendsRow,
    key=("namespace", "name"),
    doc="who is behind each service",
)
TABLES = (SERVICES, BACKENDS)
