"""The kernel decides flows of the conformance corpus as the engine does: verdict, authentication mode, rule ids.

Each case's tables are loaded, and a packet per flow runs through the real program, by IPv4 and by IPv6. Peers that are no
workloads get an address with their identity in the ipcache.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field

from axoneme.core.datapath.reasons import REASONS
from axoneme.core.records import Stage
from axoneme.core.testing.datapath import Action, DatapathBench
from axoneme.core.testing.packets import ICMP, SCTP, TCP, UDP, Ethernet, ICMPv6, IPv4, IPv6, build, echo
from axoneme.plugins import policy
from axoneme.plugins.policy.config import PolicyConfig
from axoneme.plugins.policy.corpus import RESERVED, CaseWorld, read
from axoneme.plugins.policy.maps import PolicyMaps, specs
from axoneme.plugins.policy.model import Auth, Direction, Protocol
from axoneme.plugins.policy.tables import NO_SUBJECT
from axoneme.plugins.policy.tables import Action as Decision

pytestmark = pytest.mark.kernel

FOLDER = Path(__file__).parents[2] / "conformance" / "policy"
#: Every so many-th case is taken.
STRIDES = {"handwritten.jsonl.gz": 4, "random.jsonl.gz": 5}
ENOUGH = 3_000
REASON = {reason.number: reason.name for reason in REASONS}
#: The ICMP types that are neither an answer nor about another packet.
ICMP_TYPES = {4: (Protocol.ICMP, (4, 8, 9, 80, 128)), 6: (Protocol.ICMPV6, (128,))}
MOST_PODS = 16


@pytest.fixture(scope="module")
def bench() -> Iterator[DatapathBench]:
    class Context:
        config = PolicyConfig()

    stages: list[tuple[str, Stage]] = [("policy", one) for one in policy.axoneme_stages(Context())]  # type: ignore[arg-type]
    with DatapathBench(stages, specs(4096, 16384)) as bench:
        yield bench


def words(address: str) -> list[int]:
    found = ip_address(address)
    size = found.max_prefixlen // 32
    return [int(found) >> 32 * (size - 1 - at) & 0xFFFFFFFF for at in range(size)]


@define
class Loaded:
    """A case in the kernel."""

    bench: DatapathBench
    case: dict[str, Any]
    family: int
    world: CaseWorld = field(init=False)
    pods: dict[str, int] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.world = CaseWorld(self.case)
        self.pods = {name: index for index, name in enumerate(sorted(self.case["endpoints"]), 1)}
        for name in ("endpoints", "ipcache", "connections"):
            self.bench.map(f"{name}{self.family}").clear()
        self.bench.map("links").clear()
        self._tables()
        self._workloads()
        self._addresses()

    def _tables(self) -> None:
        maps = PolicyMaps(*(self.bench.map(f"policy_{one}") for one in ("subjects", "peers", "verdicts")))
        maps.peers.clear()
        maps.verdicts.clear()
        tables = self.world.engine.tables
        maps.set_subjects(dict.fromkeys(range(256, 256 + 2 * MOST_PODS), NO_SUBJECT))
        maps.add_verdicts(tables.verdicts)
        maps.set_peers(tables.peers)
        maps.set_subjects(tables.subjects)

    def _workloads(self) -> None:
        for name, index in self.pods.items():
            row = {
                "ifindex": self.bench.link(f"pod{index}"), "identity": self.world.identity(name),
                "id": self.world.endpoint(name), "mac": mac(2, index), "node_mac": mac(6, index),
            }  # fmt: skip
            self.bench.map(f"endpoints{self.family}").update({"a": words(self.address(name))}, row)
            self.bench.map("links").update(row["ifindex"], row)

    def _addresses(self) -> None:
        for prefix, identity in self.world.prefixes.items():
            if prefix.version == self.family:
                self.bench.ipcache(str(prefix), identity)
        everywhere = "0.0.0.0/0" if self.family == 4 else "::/0"
        self.bench.ipcache(everywhere, self.world.identity(f"world:{everywhere.partition('/')[0]}"))
        for name in RESERVED:
            self.bench.ipcache(self.address(name) + ("/32" if self.family == 4 else "/128"), RESERVED[name])

    def address(self, peer: str) -> str:
        if peer.startswith("world:"):
            return peer.removeprefix("world:")
        net, number = (1, self.pods[peer]) if peer in self.pods else (2, RESERVED[peer])
        return f"100.64.{net}.{number}" if self.family == 4 else f"fd64:{net}::{number:x}"

    def can_send(self, flow: dict[str, Any]) -> bool:
        """Whether the flow is one of packets that a workload sends or gets, in this family."""
        src, dst, protocol = flow["src"], flow["dst"], Protocol[flow["protocol"].upper()]
        if src == dst or not (src in self.pods or dst in self.pods):
            return False
        if any(one.startswith("world:") and not self._is_ordinary(one[6:]) for one in (src, dst)):
            return False
        if protocol in (Protocol.ICMP, Protocol.ICMPV6):
            mine, types = ICMP_TYPES[self.family]
            return protocol is mine and flow["port"] in types
        return bool(flow["port"])

    def _is_ordinary(self, text: str) -> bool:
        """An address of this family with somebody behind it."""
        address = ip_address(text)
        special = address.is_multicast or address.is_link_local or address.is_unspecified
        return address.version == self.family and not special and text != "255.255.255.255"

    def frame(self, flow: dict[str, Any], sport: int) -> bytes:
        index = self.pods.get(flow["src"], 99)
        addresses = self.address(flow["src"]), self.address(flow["dst"])
        port, protocol = flow["port"], Protocol[flow["protocol"].upper()]
        layer: Any = {
            Protocol.TCP: TCP(sport, port, flags=2),
            Protocol.UDP: UDP(sport, port),
            Protocol.SCTP: SCTP(sport, port),
            Protocol.ICMP: ICMP(port & 255, rest=echo(sport, 1)),
            Protocol.ICMPV6: ICMPv6(port & 255, rest=echo(sport, 1)),
        }[protocol]
        ip: Any = IPv4(*addresses) if self.family == 4 else IPv6(*addresses)
        ethernet = Ethernet(dst=mac_text(6, index), src=mac_text(2, index))
        return build(ethernet, ip, layer, b"payload")

    def send(self, flow: dict[str, Any], sport: int) -> tuple[Any, ...]:
        """What the kernel says: drop reason or None, authentication mode, rules."""
        point, who = (
            ("from_workload", flow["src"]) if flow["src"] in self.pods else ("to_workload", flow["dst"])
        )
        outcome = self.bench.run(point, self.frame(flow, sport), sender=f"pod{self.pods[who]}")
        (event,) = outcome.events
        reason = REASON[int(event["reason"])] if outcome.action is Action.SHOT else None
        return reason, int(event["auth"]), int(event["egress_rule"]), int(event["ingress_rule"])

    def decided(self, flow: dict[str, Any]) -> tuple[Any, ...]:
        """What the engine says, in the same terms."""
        rules, proxies, auth = {"egress": 0, "ingress": 0}, set(), 0
        engine, protocol = self.world.engine, int(Protocol[flow["protocol"].upper()])
        for direction, own, other in (
            (Direction.EGRESS, flow["src"], flow["dst"]),
            (Direction.INGRESS, flow["dst"], flow["src"]),
        ):
            endpoint = self.world.endpoint(own) if own in self.pods else None
            if endpoint is None or not engine.tables.subjects[endpoint].enforced(direction):
                continue
            identity = self.world.identity(other)
            found = engine.tables.lookup(endpoint, direction, identity, protocol, flow["port"])
            assert found is not None
            known = engine.verdict(endpoint, direction, identity, protocol, flow["port"])
            assert known is not None
            assert engine.rules.number(known.rule) == found.rule
            rules[direction] = found.rule
            if not found.action.allows:
                reason = "POLICY_DENY" if found.action is Decision.DENY_RULE else "POLICY_DENIED"
                return reason, auth, *rules.values()
            if found.action is Decision.REDIRECT:
                proxies.add(found.proxy_port)
                if len(proxies) > 1:
                    return "PROXY_ABSENT", auth, *rules.values()
            if found.auth > Auth.DISABLED:
                auth = max(auth, found.auth)
        owed = "AUTH_REQUIRED" if auth else "PROXY_ABSENT" if proxies else None
        return owed, auth, *rules.values()


def mac(kind: int, index: int) -> bytes:
    return bytes([kind, 0, 0, 0, 0, index])


def mac_text(kind: int, index: int) -> str:
    return mac(kind, index).hex(":")


def cases() -> Iterator[dict[str, Any]]:
    for name, stride in STRIDES.items():
        for case in islice(read(FOLDER / name), 0, None, stride):
            if len(case["endpoints"]) <= MOST_PODS:
                yield case


@pytest.mark.parametrize("family", [4, 6])
def test_the_kernel_decides_as_the_engine(bench: DatapathBench, family: int) -> None:
    flows = 0
    seen = set()
    for case in cases():
        loaded = Loaded(bench, case, family)
        for sport, flow in enumerate(filter(loaded.can_send, case["flows"]), 10_000):
            want, got = loaded.decided(flow), loaded.send(flow, sport)
            assert got == want, (case["name"], flow)
            seen.add(want[0])
            flows += 1
    assert flows >= ENOUGH
    assert seen >= {None, "POLICY_DENIED", "POLICY_DENY", "AUTH_REQUIRED", "PROXY_ABSENT"}
