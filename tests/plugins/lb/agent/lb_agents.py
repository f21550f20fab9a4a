"""A host with an agent, clients, and servers that say who they are: what both ends of a service see."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from attrs import field, frozen
from lb_scenes import slices

from axoneme.core.net import namespaces
from axoneme.core.testing.namespaces import EchoServer, Namespaces, ask
from axoneme.core.testing.node import Node, Placed

PORT = 8080
NODE_ADDRESSES = ["192.0.2.77", "2001:db8::77"]


def place(address: str, port: int) -> str:
    """As people write it: `10.0.0.1:80`, `[fd00::1]:80`."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


@frozen(kw_only=True)
class World:
    """A started node. Every server answers with its workload's name, on TCP and UDP of `PORT`, both families."""

    node: Node
    netns: Namespaces
    workloads: dict[str, Placed] = field(factory=dict)
    servers: dict[tuple[str, str], EchoServer] = field(factory=dict)
    #: Namespaces of hosts without an agent.
    hosts: dict[str, str] = field(factory=dict)

    def workload(self, name: str, **labels: str) -> Placed:
        placed = self.workloads[name] = self.node.workload(name, **labels)
        return placed

    def server(self, name: str, port: int = PORT, **labels: str) -> Placed:
        placed = self.workload(name, **labels)
        self.serve(name, port)
        return placed

    def serve(self, name: str, port: int) -> None:
        netns, answer = self.workloads[name].netns, name.encode()
        self.servers[name, "tcp"] = self.netns.serve_tcp(netns, port, lambda _: answer)
        self.servers[name, "udp"] = self.netns.serve_udp(netns, port, lambda _: answer)

    def ask(self, client: str, address: str, port: int, *, udp: bool = False, timeout: float = 3) -> str:
        """Who answers; empty for nobody. An answer from elsewhere than from whom was asked would not be one."""
        netns = self.workloads[client].netns
        try:
            return ask(netns, address, port, udp=udp, timeout=timeout).decode()
        except OSError:
            return ""

    def spread(self, client: str, address: str, port: int, times: int, *, udp: bool = False) -> Counter[str]:
        """How often each one answers."""
        return Counter(self.ask(client, address, port, udp=udp) for _ in range(times))

    def seen(self, name: str, protocol: str) -> str:
        """Whom the server of a workload saw last."""
        return self.servers[name, protocol].seen[-1]

    def resource(self, name: str, text: str) -> None:
        self.node.resource(name, text)

    def service(self, name: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.node.call("service.get", service=name)
        return rows

    def used(self, frontend: str, traffic: str = "from this node") -> set[str]:
        """The backends' addresses that the kernel chooses from at a frontend, of all protocols."""
        rows = self.node.call("service.explain", frontend=frontend)
        chosen = [row for row in rows if row["traffic"] == traffic]
        return {
            one["address"].rpartition(":")[0] for row in chosen for one in row["backends"] if one["slots"]
        }

    def until_used(self, frontend: str, *backends: str, traffic: str = "from this node") -> None:
        """Waits until exactly these are chosen from, by address."""
        wanted = {f"[{one}]" if ":" in one else one for one in backends}

        def reached() -> bool:
            with contextlib.suppress(Exception):
                return self.used(frontend, traffic) == wanted
            return False

        self.node.until(reached, f"{frontend} leads to {', '.join(sorted(wanted)) or 'nobody'}")

    def behind(self, service: str, port: int, names: Sequence[str], leaving: Sequence[str] = ()) -> str:
        """The slices of a service with a port `t` by TCP and a port `u` by UDP, of both families: these backends, and more that
        terminate.
        """
        made = ""
        for family, (protocol, name) in itertools.product(range(2), (("TCP", "t"), ("UDP", "u"))):
            rows = [self.workloads[one].addresses[family] for one in names]
            for one in leaving:
                address = self.workloads[one].addresses[family]
                rows.append(f"{address} conditions: {{ready: false, serving: true, terminating: true}}")
            part = slices(service, rows, port, protocol=protocol, port_name=name)
            made += part.replace(f"name: {service}-", f"name: {service}-{name}-")
        return made

    def until_forgotten(self, name: str, port: int) -> None:
        """Waits until the kernel has no such backend any more."""
        gone = {place(address, port) for address in self.workloads[name].addresses}

        def forgotten() -> bool:
            rows = self.node.call("lb.map", view="backends")
            return not any(row["address"].partition("/")[0] in gone for row in rows)

        self.node.until(forgotten, f"{name} is gone from the kernel")


@contextlib.contextmanager
def world_of(**lb: Any) -> Iterator[World]:
    values = {
        "plugins": {"enabled": ["lb"], "lb": lb},
        "node": {"addresses": NODE_ADDRESSES, "name": "here"},
    }
    with Node(values) as node, Namespaces() as netns:
        node.start()
        yield World(node=node, netns=netns)


def _begin(cgroup: str, netns: str) -> None:
    Path(cgroup, "cgroup.procs").write_text(str(os.getpid()))
    namespaces.stay_in(netns)


@contextlib.contextmanager
def process(world: World, netns: str) -> Iterator[Any]:
    """Calls functions in a process of the node's cgroup and of this namespace."""
    assert world.node.cgroup is not None
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(1, context, _begin, (str(world.node.cgroup), netns)) as pool:
        yield lambda function, *arguments: pool.submit(function, *arguments).result(30)
