"""A node of its own for each test: workloads whose host is a network namespace, so that nothing of the machine is touched."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pyroute2.iproute import IPRoute

from axoneme.core.net import host, namespaces
from axoneme.core.state.table import State
from axoneme.core.testing.namespaces import Namespaces, unique, within
from axoneme.core.workloads.endpoints import TABLES, Endpoint
from axoneme.core.workloads.workloads import WorkloadOptions, Workloads

DELIVERY = 100
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


def prepare(netns: str) -> None:
    """Makes a namespace a host: it forwards, and looks at the table `DELIVERY` before all others."""

    def run() -> None:
        host.prepare_host()
        with IPRoute() as rtnl:
            for family in FAMILIES.values():
                rtnl.rule("add", table=DELIVERY, priority=100, family=family)

    within(netns, run)


class Node:
    """Makes `Workloads` for one state folder and one host namespace, any number after each other."""

    def __init__(self, folder: Path, netns: str) -> None:
        self.netns = netns
        self.prefix = f"{unique('axt')}-"
        self.options = WorkloadOptions(
            folder=folder,
            agent="test",
            ipv4="10.240.0.0/16",
            ipv6="fd40::/64",
            namespace_prefix=self.prefix,
            host_netns=netns,
        )
        self.links: list[int] = []
        self.unlinked: list[int] = []
        self._made: list[Workloads] = []

    def workloads(self, **more: Any) -> Workloads:
        made = Workloads(State(TABLES), self.options, on_link=self._link, on_unlink=self._unlink, **more)
        self._made.append(made)
        return made

    async def start(self, **more: Any) -> Workloads:
        made = self.workloads(**more)
        await made.restore()
        return made

    async def kill(self) -> None:
        """What is left of an agent that was killed: nothing in the process, everything in the kernel and on the disk."""
        for made in self._made:
            await made.close()
        self._made.clear()

    def netns_names(self) -> list[str]:
        return [name for name in namespaces.names() if name.startswith(self.prefix)]

    def deliver(self, *endpoints: Endpoint) -> None:
        """Routes each endpoint's addresses to its own interface, as no program does it in this node.

        In a table of its own that is looked at first: the routes to the hub stay what they are.
        """

        def route() -> None:
            with IPRoute() as rtnl:
                for endpoint in endpoints:
                    for address in endpoint.addresses:
                        where = {
                            "oif": endpoint.ifindex,
                            "table": DELIVERY,
                            "family": FAMILIES[address.version],
                        }
                        rtnl.route("replace", dst=f"{address}/{address.max_prefixlen}", **where)
                        rtnl.neigh(
                            "replace",
                            dst=str(address),
                            lladdr=endpoint.mac,
                            ifindex=endpoint.ifindex,
                            state="permanent",
                        )

        within(self.netns, route)

    def clean(self) -> None:
        for name in self.netns_names():
            namespaces.delete(name)

    async def _link(self, ifindex: int) -> None:
        self.links.append(ifindex)

    async def _unlink(self, ifindex: int) -> None:
        self.unlinked.append(ifindex)


@pytest.fixture
async def node(tmp_path: Path, namespaces: Namespaces) -> AsyncIterator[Node]:
    name = namespaces.make()
    prepare(name)
    made = Node(tmp_path / "state", name)
    try:
        yield made
    finally:
        await made.kill()
        made.clean()
