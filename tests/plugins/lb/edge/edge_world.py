"""The packet world with a device towards it, and the load balancer's maps."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
from attrs import frozen
from packet_world import World, populate, words

from axoneme.core.datapath.composer import Constants
from axoneme.core.datapath.testrun import run_xdp
from axoneme.core.testing.datapath import DatapathBench
from axoneme.plugins import lb
from axoneme.plugins.lb import edge, programs
from axoneme.plugins.lb.config import LbConfig
from axoneme.plugins.lb.maps import Algorithm, BackendFlag, Scope, specs

#: The node's own addresses on its device, and the router there.
NODE = {4: "198.51.100.2", 6: "2001:db8:1::2"}
ROUTER = {4: "198.51.100.1", 6: "2001:db8:1::1"}
VIP = {4: "203.0.113.80", 6: "2001:db8:80::1"}
ROUTER_MAC = "02:00:00:00:01:01"
WORLD = {4: "192.0.2.0/24", 6: "2001:db8::/64"}
REMOTE = {4: "10.1.0.0/16", 6: "fd01::/64"}


@contextlib.contextmanager
def make_bench(config: LbConfig | None = None) -> Iterator[DatapathBench]:
    config = config or LbConfig(services=1024, slots=65_536, backends=1024)
    stages = [("lb", stage) for stage in (*programs.stages(config), *edge.stages(config))]
    constants = Constants(direct_routing=True)
    with DatapathBench(
        stages,
        specs(config.sizes),
        constants=constants,
        reasons=lb.axoneme_drop_reasons(),
        cuts=("track",),
        connections=131_072,
    ) as bench:
        populate(bench)
        device = bench.link("uplink")
        bench.inside(lambda: _connect(device))
        bench.map("devices").update(device, device)
        for family, own in NODE.items():
            bench.map(f"lb_addresses{family}").update(device, {"a": words(own)})
        yield bench


def _connect(device: int) -> None:
    from pyroute2 import IPRoute

    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")  # of this namespace only
    Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")
    with IPRoute() as route:
        for family in (4, 6):
            flags, length = (0, 24) if family == 4 else (0x02, 64)  # 2: no duplicate address detection
            route.addr("add", index=device, address=NODE[family], prefixlen=length, flags=flags)
            route.neigh("add", dst=ROUTER[family], lladdr=ROUTER_MAC, ifindex=device, state=0x80)
            for network in (WORLD[family], REMOTE[family]):
                route.route("add", dst=network, gateway=ROUTER[family], oif=device)


class Xdp(enum.IntEnum):
    """What an XDP program returned (`linux/bpf.h`)."""

    ABORTED, DROP, PASS, TX, REDIRECT = range(5)


@frozen(eq=False)
class FrameOutcome:
    verdict: Xdp
    frame: bytes
    events: np.ndarray[Any, Any]


class Edge(World):
    """One family's view of it."""

    def reset(self) -> Self:
        super().reset()
        for name in ("lb_native4", "lb_native6", "lb_services4", "lb_services6", "lb_ways4", "lb_ways6"):
            self.bench.map(name).clear()
        return self

    def reset_connections(self) -> None:
        """As if nobody had asked for anything; services stay."""
        for name in ("connections", "fragments", "lb_ways"):
            self.bench.map(f"{name}{self.family}").clear()

    @property
    def node(self) -> str:
        return NODE[self.family]

    def native(self, prefix: str) -> None:
        """Workloads reach it under their own addresses."""
        address, length = prefix.split("/")
        key: dict[str, Any] = {"length": int(length), "address": {"a": words(address)}}
        self.bench.map(f"lb_native{self.family}").update(key, 1)

    # Services.

    def backend(self, number: int, address: str, port: int, flags: BackendFlag = BackendFlag.USED) -> None:
        row = {
            "address": {"a": words(self.addresses.get(address, address))},
            "port": port,
            "flags": int(flags),
        }
        self.bench.map(f"lb_backends{self.family}").update(number, row)

    def service(
        self,
        *backends: int,
        port: int = 80,
        protocol: int = 6,
        number: int = 7,
        first: int = 64,
        **fields: int,
    ) -> None:
        """A service of the node's edge under the address `VIP`, with these numbers in its slots."""
        for at, backend in enumerate(backends):
            self.bench.map("lb_slots").update(first + at, backend)
        key = {
            "address": {"a": words(self.vip)}, "port": port, "protocol": protocol, "scope": int(Scope.EXTERNAL),
        }  # fmt: skip
        row = {"number": number, "first": first, "count": len(backends), "algorithm": int(Algorithm.MAGLEV)}
        self.bench.map(f"lb_services{self.family}").update(key, row | fields)

    @property
    def vip(self) -> str:
        return VIP[self.family]

    def enter(self, frame: bytes) -> FrameOutcome:
        """A frame comes in by the device, before the stack sees it."""
        device = self.bench.link("uplink")
        program = self.bench.program("xdp_network").main
        self.bench.ring.read()
        done = self.bench.inside(lambda: run_xdp(program, frame, ingress_ifindex=device))
        return FrameOutcome(Xdp(done.verdict), done.packet, self.bench.ring.read())
