"""The packet tests' three workloads, with services in front of them: one family's view (`World`) and what services need."""

from __future__ import annotations

from typing import Any

from attrs import define, evolve, field
from packet_world import ADDRESSES, GATE_MAP, GATE_STAGE, STRATEGIES, World, populate, words

from axoneme.core.datapath.composer import Composition
from axoneme.core.testing.datapath import DatapathBench
from axoneme.core.testing.packets import TCP, UDP, IPv4, IPv6, parse
from axoneme.plugins import lb
from axoneme.plugins.lb import maps
from axoneme.plugins.lb.config import LbConfig
from axoneme.plugins.lb.maps import Algorithm, BackendFlag
from axoneme.plugins.lb.programs import stages

TCP_PROTOCOL, UDP_PROTOCOL = 6, 17

#: Addresses of services, by family.
SERVICES = {
    4: {"vip": "10.96.0.1", "vip2": "10.96.0.2", "loopback": "169.254.42.1"},
    6: {"vip": "fd00:96::1", "vip2": "fd00:96::2", "loopback": "fd00:169:254:42::1"},
}


def make_bench(strategy: str = "single", kind: type[DatapathBench] = DatapathBench) -> DatapathBench:
    config = LbConfig(slots=65536, backends=4096, services=4096)
    chosen = [("lb", stage) for stage in stages(config) if stage.name == "translate"]
    return kind(
        [*chosen, ("test", GATE_STAGE)],
        [*maps.specs(config.sizes), GATE_MAP],
        reasons=tuple(lb.axoneme_drop_reasons()),
        cuts=STRATEGIES[strategy],
    )


#: Where a new connection's answers are looked for, before its entries are made.
_LOOK = "verdict = F(unique)(p, &back_key);"


class LateBench(DatapathBench):
    """Whoever has the answers' key came between the look at it and the entry, as another CPU may."""

    def compose(self, point: str) -> Composition:
        composed = super().compose(point)
        assert composed.text.count(_LOOK) == 2, "one per family"
        return evolve(composed, text=composed.text.replace(_LOOK, "verdict = NEXT;"))


@define
class Services:
    """Writes services into the maps, and reads addresses out of packets."""

    world: World
    _slots: int = field(default=0)

    @property
    def bench(self) -> DatapathBench:
        return self.world.bench

    def map(self, name: str) -> Any:
        return self.bench.map(f"{name}{self.world.family}")

    def frontend(
        self, name: str, port: int = 80, protocol: int = TCP_PROTOCOL, scope: int = 0
    ) -> dict[str, Any]:
        return {
            "address": {"a": words(self.world.addresses[name])},
            "port": port, "protocol": protocol, "scope": scope,
        }  # fmt: skip

    def backend(self, number: int, name: str, port: int = 8080, flags: int = BackendFlag.USED) -> None:
        row = {"address": {"a": words(self.world.addresses[name])}, "port": port, "flags": int(flags)}
        self.map("lb_backends").update(number, row)

    def no_backend(self, number: int) -> None:
        self.map("lb_backends").update(number, {"port": 0})

    def service(
        self, name: str, number: int, *backends: int, port: int = 80, protocol: int = TCP_PROTOCOL, scope: int = 0,
        algorithm: Algorithm = Algorithm.RANDOM, flags: int = 0, affinity: int = 0,
    ) -> None:  # fmt: skip
        """A new stretch of slots, then the row; members where they are looked at."""
        for at, backend in enumerate(backends):
            self.bench.map("lb_slots").update(self._slots + at, backend)
        if affinity:
            for backend in backends:
                self.bench.map("lb_members").update({"service": number, "backend": backend}, 1)
        row = {
            "number": number, "first": self._slots, "count": len(backends), "affinity": affinity, "flags": int(flags),
            "algorithm": int(algorithm),
        }  # fmt: skip
        self.map("lb_services").update(self.frontend(name, port, protocol, scope), row)
        self._slots += len(backends)

    def no_service(self, name: str, port: int = 80, protocol: int = TCP_PROTOCOL) -> None:
        self.map("lb_services").delete(self.frontend(name, port, protocol))

    def ends(self, frame: bytes) -> tuple[str, int, str, int]:
        """Source and destination, by the names of this world where they have one."""
        packet = parse(frame)
        ip = packet[IPv4] if self.world.family == 4 else packet[IPv6]
        transport = packet[TCP] if TCP in packet else packet[UDP]
        names = {address: name for name, address in self.world.addresses.items()}
        return names.get(ip.src, ip.src), transport.sport, names.get(ip.dst, ip.dst), transport.dport


def services_of(bench: DatapathBench, family: int) -> Services:
    """A world with nothing in its tables."""
    world = World(bench, family)
    object.__setattr__(world, "addresses", {**ADDRESSES[family], **SERVICES[family]})
    world.reset()
    for name in ("lb_services", "lb_backends", "lb_sources"):
        bench.map(f"{name}{family}").clear()
    for name in ("lb_slots", "lb_affinity", "lb_members", "lb_skips", "lb_loads", "lb_turns"):
        bench.map(name).clear()
    return Services(world)


__all__ = ["LateBench", "Services", "make_bench", "populate", "services_of"]
