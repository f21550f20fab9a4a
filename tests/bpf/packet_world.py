"""Three workloads, the host, another node's workload and the world, for tests that send packets among them."""

from __future__ import annotations

import ipaddress
import time
from typing import Any, Self

import attrs
import numpy as np
import pytest
from attrs import field, frozen

from axoneme.core.datapath.abi import TUPLE
from axoneme.core.datapath.layout import Struct, u32
from axoneme.core.datapath.maps import MapKind, MapSpec
from axoneme.core.datapath.reasons import BY_NUMBER, FORGOTTEN, FORWARDED, LOST_EVENTS
from axoneme.core.records import Phase, Stage
from axoneme.core.testing.datapath import Action, DatapathBench, Outcome
from axoneme.core.testing.packets import (
    ACK,
    FIN,
    ICMP,
    SYN,
    TCP,
    UDP,
    Ethernet,
    ICMPv6,
    IPv4,
    IPv6,
    Layer,
    build,
    echo,
    intact,
    parse,
)

ADDRESSES = {
    4: {
        "a": "10.0.0.1", "b": "10.0.0.2", "c": "10.0.0.3",
        "host": "192.168.0.1", "remote": "10.1.0.7", "world": "192.0.2.1", "router": "192.0.2.254",
        "gateway": "169.254.1.1", "unused": "10.0.0.99",
    },
    6: {
        "a": "fd00::1", "b": "fd00::2", "c": "fd00::3",
        "host": "fd99::1", "remote": "fd01::7", "world": "2001:db8::1", "router": "2001:db8::fe",
        "gateway": "fe80::1", "unused": "fd00::99",
    },
}  # fmt: skip
NUMBERS = {"a": 1, "b": 2, "c": 3}
IDENTITIES = {"a": 256, "b": 257, "c": 258, "host": 1, "world": 2, "router": 2, "remote": 300}
PREFIXES = {4: ("192.168.0.1/32", "10.1.0.0/16"), 6: ("fd99::1/128", "fd01::/64")}

STRATEGIES = {"single": (), "one cut": ("track",), "cuts": ("track", "authenticate", "encrypt")}

TCP_PROTOCOL, UDP_PROTOCOL = 6, 17

#: Marks of tests that one family only has a meaning for.
ipv4_only = pytest.mark.parametrize("world", [4], indirect=True, ids=["ipv4"])
ipv6_only = pytest.mark.parametrize("world", [6], indirect=True, ids=["ipv6"])

#: A decision that tests make: which reason to drop for (0: none), what is owed, the mark, the rules' numbers.
GATE = Struct(
    "gate", {"reason": u32, "owed": u32, "mark": u32, "egress_rule": u32, "ingress_rule": u32, "asked": u32}
)
GATE_MAP = MapSpec("gate", MapKind.ARRAY, u32, GATE, 1)
GATE_STAGE = Stage(
    name="gate",
    attach=("from_workload", "to_workload", "from_network"),
    phase=Phase.DECIDE,
    maps=("gate",),
    source="""
STAGE(gate)
{
	u32 zero = 0;
	struct gate *gate = gate_lookup(&zero);

	if (!gate)
		return NEXT;
	gate->asked++;
	p->owed = gate->owed;
	p->mark = gate->mark;
	p->egress_rule = gate->egress_rule;
	p->ingress_rule = gate->ingress_rule;
	return gate->reason ? DROP(gate->reason) : NEXT;
}
""",
)


def mac_of(number: int) -> str:
    return f"02:00:00:00:00:{number:02x}"


def node_mac_of(number: int) -> str:
    return f"06:00:00:00:00:{number:02x}"


def make_bench(strategy: str) -> DatapathBench:
    return DatapathBench([("test", GATE_STAGE)], [GATE_MAP], cuts=STRATEGIES[strategy])


def populate(bench: DatapathBench) -> None:
    for name, number in NUMBERS.items():
        ipv4, ipv6 = ADDRESSES[4][name], ADDRESSES[6][name]
        bench.workload(number, name, identity=IDENTITIES[name], ipv4=ipv4, ipv6=ipv6)
    for host, pods in PREFIXES.values():
        bench.ipcache(host, IDENTITIES["host"])
        bench.ipcache(pods, IDENTITIES["remote"])


@frozen
class World:
    """A populated bench, seen through one family's addresses."""

    bench: DatapathBench
    family: int
    addresses: dict[str, str] = field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "addresses", ADDRESSES[self.family])

    def reset(self) -> Self:
        self.grant(None)
        for name in ("connections4", "connections6", "fragments4", "fragments6"):
            self.bench.map(name).clear()
        self.bench.revision = 1
        if "gate" in self.bench.specs:
            self.gate()
        return self

    # Packets.

    def ip(self, src: str, dst: str, *, ttl: int = 64, **more: Any) -> Layer:
        source, destination = self.addresses.get(src, src), self.addresses.get(dst, dst)
        if self.family == 4:
            return IPv4(source, destination, ttl=ttl, **more)
        return IPv6(source, destination, hop_limit=ttl, **more)

    def frame(self, src: str, dst: str, *parts: Layer | bytes, **ip: Any) -> bytes:
        number = NUMBERS.get(src, 9)
        return build(Ethernet(node_mac_of(number), mac_of(number)), self.ip(src, dst, **ip), *parts)

    def tcp(
        self, src: str, dst: str, flags: int = ACK, *, sport: int = 40000, dport: int = 80, **ip: Any
    ) -> bytes:
        return self.frame(src, dst, TCP(sport, dport, flags=flags), b"payload", **ip)

    def udp(self, src: str, dst: str, *, sport: int = 40000, dport: int = 53, **ip: Any) -> bytes:
        return self.frame(src, dst, UDP(sport, dport), b"payload", **ip)

    def echo(
        self,
        src: str,
        dst: str,
        *,
        reply: bool = False,
        identifier: int = 77,
        data: bytes = b"ping",
        **ip: Any,
    ) -> bytes:
        if self.family == 4:
            layer: Layer = ICMP(0 if reply else 8, rest=echo(identifier, 1))
        else:
            layer = ICMPv6(129 if reply else 128, rest=echo(identifier, 1))
        return self.frame(src, dst, layer, data, **ip)

    def error(self, src: str, dst: str, about: bytes, *, kind: int | None = None) -> bytes:
        """An ICMP error (destination unreachable, unless told otherwise) about the packet of a frame."""
        layer: Layer = ICMP(3 if kind is None else kind) if self.family == 4 else ICMPv6(kind or 1)
        return self.frame(src, dst, layer, about[14:])

    # Sending.

    def send(self, frame: bytes, *, sender: str | None = None, **context: Any) -> Outcome:
        """A workload sends; by default, whom the frame's source address belongs to."""
        return self.bench.run("from_workload", frame, sender=sender or self._owner(frame), **context)

    def arrive(self, frame: bytes, *, via: str = "uplink", **context: Any) -> Outcome:
        """Comes in from the network."""
        index = self.bench.link(via)
        return self.bench.run("from_network", frame, sender=index, ingress_ifindex=index, **context)

    def deliver(self, frame: bytes, **context: Any) -> Outcome:
        """The host's stack sends it towards a workload."""
        return self.bench.run("to_workload", frame, sender=self.bench.link("hub"), **context)

    def _owner(self, frame: bytes) -> str:
        packet = parse(frame)
        source = packet[IPv4].src if self.family == 4 else packet[IPv6].src
        return next(name for name in NUMBERS if self.addresses[name] == source)

    def gate(self, **decision: int) -> None:
        self.bench.map("gate").update(0, decision)

    def asked(self) -> int:
        return int(self.bench.map("gate").lookup(0)["asked"])

    def grant(self, allowance: int | None, *, seconds: float = 60.0) -> None:
        """Room for so many more entries, and until when from now; None: no grant at all."""
        until = time.clock_gettime_ns(time.CLOCK_MONOTONIC) + int(seconds * 1e9)
        row = {"allowance": self.entered() + (allowance or 0), "until": 0 if allowance is None else until}
        self.bench.map("grants").update(int(self.family == 6), row)

    # Looking.

    def entered(self) -> int:
        """Entries made so far."""
        return int(self.bench.map("admissions").lookup(int(self.family == 6))["entered"])

    def refused(self) -> int:
        """New connections for which there was no room so far."""
        return int(self.bench.map("admissions").lookup(int(self.family == 6))["refused"])

    def key(
        self, src: str, dst: str, sport: int = 40000, dport: int = 80, protocol: int = TCP_PROTOCOL
    ) -> dict[str, Any]:
        return {
            "saddr": {"a": words(self.addresses[src])},
            "daddr": {"a": words(self.addresses[dst])},
            "sport": sport,
            "dport": dport,
            "protocol": protocol,
        }

    def connection(self, src: str, dst: str, *ports: int) -> Any:
        """The entry of one direction, or None."""
        return self.table.lookup(self.key(src, dst, *ports))

    def forget(self, src: str, dst: str, *ports: int) -> None:
        assert self.table.delete(self.key(src, dst, *ports))

    @property
    def table(self) -> Any:
        return self.bench.map(f"connections{self.family}")

    def entries(self) -> int:
        return len(self.table.items()[0])

    def snapshot(self) -> bytes:
        """Everything that the table holds, to show that something left it alone."""
        keys, values = self.table.items()
        order = np.argsort(keys, order=TUPLE[self.family].dtype.names)
        return bytes(keys[order].tobytes() + values[order].tobytes())

    def counted(self, reason: str | int, direction: int = 1) -> int:
        """Packets counted so far under a reason; direction 1 is out of a workload."""
        number = reason if isinstance(reason, int) else reason_number(reason)
        return int(self.bench.map("counters").lookup(number * 2 + direction)["packets"].sum())

    def open(self, src: str, dst: str, **ports: int) -> None:
        """The three packets that open a TCP connection."""
        back = {"sport": ports.get("dport", 80), "dport": ports.get("sport", 40000)}
        assert self.send(self.tcp(src, dst, SYN, **ports)).action is Action.REDIRECT
        assert self.send(self.tcp(dst, src, SYN | ACK, **back)).action is Action.REDIRECT
        assert self.send(self.tcp(src, dst, ACK, **ports)).action is Action.REDIRECT

    def shut(self, src: str, dst: str, **ports: int) -> list[Any]:
        """FIN from both sides; returns the events that this made."""
        back = {"sport": ports.get("dport", 80), "dport": ports.get("sport", 40000)}
        first = self.send(self.tcp(src, dst, FIN | ACK, **ports))
        return [*first.events, *self.send(self.tcp(dst, src, FIN | ACK, **back)).events]


def words(address: str) -> list[int]:
    packed = ipaddress.ip_address(address).packed
    return [int.from_bytes(packed[at : at + 4], "big") for at in range(0, len(packed), 4)]


def wide(address: str) -> list[int]:
    """As events have addresses."""
    plain = words(address)
    return plain if len(plain) == 4 else [0, 0, 0xFFFF, *plain]


def reason_number(name: str) -> int:
    special = {"LOST_EVENTS": LOST_EVENTS, "FORWARDED": FORWARDED, "FORGOTTEN": FORGOTTEN}
    return special[name] if name in special else next(n for n, r in BY_NUMBER.items() if r.name == name)


def dropped(outcome: Outcome, reason: str) -> bool:
    """It was dropped for that reason, and one event says so."""
    return outcome.action is Action.SHOT and outcome.reason == reason and len(outcome.events) == 1


def discarded(outcome: Outcome) -> bool:
    """It was dropped without a word."""
    return outcome.action is Action.SHOT and not len(outcome.events)


def forwarded(sent: bytes, outcome: Outcome, *, source: int, destination: int, hop: int = 1) -> bool:
    """It was handed on, and nothing is changed but what a hop changes: MACs, TTL and the IPv4 checksum."""
    before = parse(sent)
    ethernet, ip = before[Ethernet], before.layers[1]
    expected = attrs.evolve(ethernet, dst=mac_of(destination), src=node_mac_of(destination))
    if isinstance(ip, IPv4):
        ip = attrs.evolve(ip, ttl=ip.ttl - hop, checksum=None)
    elif isinstance(ip, IPv6):
        ip = attrs.evolve(ip, hop_limit=ip.hop_limit - hop)
    wanted = build(expected, ip, *before.layers[2:], before.payload) + before.trailer
    return outcome.action is Action.REDIRECT and outcome.frame == wanted and intact(outcome.frame)


def only(events: Any) -> Any:
    assert len(events) == 1, events
    return events[0]
