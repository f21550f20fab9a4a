"""A hundred and twenty thousand packets, most of them broken, by every entry of the node: none is ever rewritten wrongly.

What is right is in `oracle.py`. Workloads' packets meet services, masquerading and what is beyond; those from outside meet XDP and
behind it the classifier, or the classifier alone, with backends here and elsewhere, by SNAT and by direct server return.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from ipaddress import ip_address

import numpy as np
import pytest
from attrs import define, field, frozen
from edge_world import ROUTER_MAC, Edge, make_bench
from headers import SCTP as SCTP_NUMBER
from headers import TCP as TCP_NUMBER
from headers import UDP as UDP_NUMBER
from headers import read
from oracle import Oracle, Served
from packet_world import NUMBERS, mac_of, node_mac_of, words
from scapy_packets import link, odd

from axoneme.core.datapath.kernel import BpfError
from axoneme.core.datapath.reasons import LIMIT, REASONS
from axoneme.core.datapath.testrun import SK_BUFF, XDP_MD
from axoneme.core.testing.datapath import DatapathBench
from axoneme.core.testing.packets import (
    ACK,
    FIN,
    SCTP,
    SYN,
    TCP,
    UDP,
    Extension,
    Layer,
    fragments,
    intact,
    mac,
)
from axoneme.plugins import lb
from axoneme.plugins.lb.config import LbConfig
from axoneme.plugins.lb.maps import Algorithm, Scope, ServiceFlag

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

COUNT, LONGEST = 60_000, 320  # per family
REDIRECT, PASS, SHOT = 7, 0xFFFFFFFF, 2
XDP_PASS, XDP_TX, XDP_REDIRECT = 2, 3, 4
INSIDE_VIP = {4: "10.96.0.1", 6: "fd00:96::1"}
BACK_TO_ITSELF, TO_THE_HOST, DIRECT, NODE_PORT = 81, 82, 83, 30080

#: What is to be met often: by which program, and what became of the packet.
KINDS = (
    *(f"from_workload {kind}" for kind in ("service", "masquerade", "known", "as it came", "later", "error")),
    *(f"from_network {kind}" for kind in ("service", "direct", "known", "untouched", "later", "error")),
    *(f"xdp_network {kind}" for kind in ("service", "direct", "known")),
    *(f"to_workload {kind}" for kind in ("known", "error")),
)


@pytest.fixture(scope="module")
def bench() -> Iterator[DatapathBench]:
    with make_bench() as made:
        yield made


@frozen
class Scene:
    """One family's world with services, and who judges it."""

    edge: Edge
    oracle: Oracle

    def frames(self) -> Templates:
        return Templates(self)


def packed(address: str) -> bytes:
    return ip_address(address).packed


@define
class Rows:
    """Writes services into the maps, and for the oracle."""

    edge: Edge
    inside: dict[tuple[bytes, int, int], Served] = field(factory=dict)
    outside: dict[tuple[bytes, int, int], Served] = field(factory=dict)
    _numbers: dict[tuple[str, int], int] = field(factory=dict)
    _slots: int = 64

    def _backend(self, name: str, port: int) -> int:
        if (name, port) not in self._numbers:
            self._numbers[name, port] = len(self._numbers) + 1
            self.edge.backend(self._numbers[name, port], name, port)
        return self._numbers[name, port]

    def serve(
        self,
        address: str,
        port: int,
        protocol: int,
        *backends: tuple[str, int],
        scopes: str,
        direct: bool = False,
    ) -> None:
        numbers = [self._backend(*one) for one in backends]
        for at, number in enumerate(numbers):
            self.edge.bench.map("lb_slots").update(self._slots + at, number)
        row = {
            "number": 7, "first": self._slots, "count": len(numbers), "algorithm": int(Algorithm.MAGLEV),
            "flags": int(ServiceFlag.DSR) * direct,
        }  # fmt: skip
        self._slots += len(numbers)
        known = frozenset((packed(self.edge.addresses.get(name, name)), port) for name, port in backends)
        for scope, services in ((Scope.INTERNAL, self.inside), (Scope.EXTERNAL, self.outside)):
            if scope.name.lower() in scopes:
                key = {
                    "address": {"a": words(address)}, "port": port, "protocol": protocol, "scope": int(scope),
                }  # fmt: skip
                self.edge.bench.map(f"lb_services{self.edge.family}").update(key, row)
                services[packed(address), port, protocol] = Served(known, direct)

    def all(self) -> None:
        vip, outside, both = INSIDE_VIP[self.edge.family], self.edge.vip, "internal external"
        for protocol, port in ((TCP_NUMBER, 80), (UDP_NUMBER, 53), (SCTP_NUMBER, 99)):
            self.serve(vip, port, protocol, ("b", 8080), ("remote", 8080), scopes="internal")
            self.serve(outside, port, protocol, ("remote", 8080), ("a", 8080), scopes=both)
            self.serve(outside, DIRECT, protocol, ("remote", 8080), ("a", 8080), scopes=both, direct=True)
            self.serve(vip, BACK_TO_ITSELF, protocol, ("a", 8080), scopes="internal")
            self.serve(vip, TO_THE_HOST, protocol, ("host", 9000), scopes="internal")
            self.serve(self.edge.node, NODE_PORT, protocol, ("remote", 8080), scopes=both)


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def scene(request: pytest.FixtureRequest, bench: DatapathBench) -> Scene:
    edge = Edge(bench, request.param).reset()
    rows = Rows(edge)
    rows.all()
    config = LbConfig()
    loopback = config.loopback_ipv4 if edge.family == 4 else config.loopback_ipv6
    workloads = {
        packed(edge.addresses[name]): mac(mac_of(n)) + mac(node_mac_of(n)) for name, n in NUMBERS.items()
    }
    oracle = Oracle(
        family=edge.family,
        node=packed(edge.node),
        loopback=loopback.packed,
        workloads=workloads,
        native=frozenset({*workloads, packed(edge.addresses["host"])}),
        inside=rows.inside,
        outside=rows.outside,
        handed=mac(ROUTER_MAC) + own_mac(bench, "uplink"),
    )
    return Scene(edge, oracle)


def own_mac(bench: DatapathBench, device: str) -> bytes:
    from pyroute2 import IPRoute

    def look() -> str:
        with IPRoute() as route:
            (found,) = route.get_links(index)
            return str(found.get_attr("IFLA_ADDRESS"))

    index = bench.link(device)
    return mac(bench.inside(look))


# Running.

#: Where a frame comes in: from a workload, from outside with XDP in front or without, from the node's stack to a workload.
WORKLOAD, FRONT, NETWORK, STACK = "workload", "front", "network", "stack"


@define
class Runs:
    """Sends frames through the programs; each outcome is judged. Its methods run in the bench's namespace."""

    scene: Scene
    seen: Counter[str] = field(factory=Counter)
    _calls: dict[str, Callable[[bytes], tuple[int, bytes]]] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        bench = self.scene.edge.bench
        links = {mac(mac_of(number)): bench.link(name) for name, number in NUMBERS.items()}
        outside = bench.link("uplink")
        contexts = {address: SK_BUFF.pack(ifindex=link) for address, link in links.items()}
        arriving = SK_BUFF.pack(ifindex=outside, ingress_ifindex=outside)
        delivered = SK_BUFF.pack(ifindex=bench.link("hub"))
        run = bench.kernel.program_test_run
        fds = {
            point: bench.program(point).main.fd
            for point in ("from_workload", "from_network", "to_workload", "xdp_network")
        }

        def call(point: str, context: Callable[[bytes], bytes]) -> Callable[[bytes], tuple[int, bytes]]:
            fd = fds[point]

            def called(frame: bytes) -> tuple[int, bytes]:
                done = run(fd, frame, context=context(frame))
                return done.retval, done.data

            return called

        self._calls = {
            "from_workload": call("from_workload", lambda frame: contexts[frame[6:12]]),
            "from_network": call("from_network", lambda _: arriving),
            "to_workload": call("to_workload", lambda _: delivered),
            "xdp_network": call(
                "xdp_network", lambda frame: XDP_MD.pack(data_end=len(frame), ingress_ifindex=outside)
            ),
        }

    def __call__(self, entry: str, frame: bytes) -> bytes | None:
        """What went on, or None."""
        if entry == FRONT:
            gone = self._xdp(frame)
            return self._classifier("from_network", frame) if gone is None else gone
        return self._classifier(
            {WORKLOAD: "from_workload", NETWORK: "from_network", STACK: "to_workload"}[entry], frame
        )

    def _xdp(self, frame: bytes) -> bytes | None:
        self.scene.oracle.hear("xdp_network", frame)
        verdict, after = self._calls["xdp_network"](frame)
        if verdict == XDP_PASS:  # a note may be in front of it: see `lb_choice`
            assert after in (frame, after[:8] + frame), "changed, and not sent on"
            self.seen["xdp_network passed"] += 1
            return None
        assert verdict in (XDP_TX, XDP_REDIRECT), verdict
        self._judge("xdp_network", frame, after, sent_on=True)
        return after

    def _classifier(self, point: str, frame: bytes) -> bytes | None:
        self.scene.oracle.hear(point, frame)
        try:
            verdict, after = self._calls[point](frame)
        except BpfError:  # the kernel itself takes no frame without a whole IP header
            assert len(frame) < 14 + 40
            self.seen["refused"] += 1
            return None
        if verdict == SHOT:
            self.seen["shot"] += 1
            return None
        assert verdict in (REDIRECT, PASS), verdict
        self._judge(point, frame, after, sent_on=verdict == REDIRECT)
        return after if verdict == REDIRECT or after != frame else None

    def _judge(self, point: str, frame: bytes, after: bytes, *, sent_on: bool) -> None:
        try:
            self.scene.oracle.judge(point, frame, after, sent_on=sent_on)
        except AssertionError as error:
            raise AssertionError(f"{point}: {error}\n{frame.hex()}\n{after.hex()}") from None


# Packets.


@define
class Templates:
    """Well-formed packets of flows of all kinds, both ways, with errors about them, fragments, and what is seldom seen."""

    scene: Scene
    made: list[tuple[str, bytes]] = field(factory=list)

    def all(self, run: Runs) -> list[tuple[str, bytes]]:
        e = self.scene.edge
        vip, outside = INSIDE_VIP[e.family], e.vip
        for number, (source, to) in enumerate(
            [
                ("a", vip),
                ("c", vip),
                ("a", outside),
                ("a", e.node),
                ("a", "world"),
                ("a", "remote"),
                ("a", "c"),
            ]
        ):
            self._flows(run, WORKLOAD, source, to, 2000 + 100 * number, NODE_PORT if to == e.node else 0)
        for port in (BACK_TO_ITSELF, TO_THE_HOST, 80):  # the last one: another flow to it would answer alike
            self._flows(run, WORKLOAD, "a", "b" if port == 80 else vip, 2900, 8080 if port == 80 else port)
        for entry, first in ((FRONT, 3000), (NETWORK, 4000)):
            for number, (source, to, port) in enumerate(
                [
                    ("world", outside, 0),
                    ("world", outside, DIRECT),
                    ("router", e.node, NODE_PORT),
                    ("world", e.node, 0),
                ]
            ):
                for more in range(2):  # another port, and it may be another backend
                    self._flows(run, entry, source, to, first + 100 * number + 7 * more, port)
        for entry, source, to in ((WORKLOAD, "a", vip), (WORKLOAD, "a", "world"), (FRONT, "world", outside)):
            self._odd(run, entry, source, to)
        return self.made

    def _flows(self, run: Runs, entry: str, source: str, to: str, sport: int, port: int) -> None:
        e = self.scene.edge
        asked = [
            e.tcp(source, to, SYN, sport=sport, dport=port or 80),
            e.tcp(source, to, ACK, sport=sport, dport=port or 80),
            e.udp(source, to, sport=sport, dport=port or 53),
            e.frame(source, to, SCTP(sport, port or 99, 7), b"chunks"),
            e.tcp(source, to, FIN | ACK, sport=sport + 1, dport=port or 80),
        ]
        if not port:
            asked.append(e.echo(source, to, identifier=sport))
        pieces = fragments(e.frame(source, to, UDP(sport + 2, port or 53), bytes(range(200))), 96, sport)
        for frame in (*asked, *pieces):
            self._both_ways(run, entry, frame)

    def _both_ways(self, run: Runs, entry: str, frame: bytes) -> None:
        """The packet, its answer, and errors about both."""
        gone = self._one(run, entry, frame)
        found = None if gone is None else read(gone)
        if gone is None or found is None or found.ports is None or found.fragment is not None:
            return
        back, answer = self._answer(gone)
        answered = self._one(run, back, answer)
        if found.protocol == UDP_NUMBER:
            self._without_sum(run, entry, frame, gone)
            if answered is not None:
                self._without_sum(run, back, answer, answered)
        teller = "router" if back in (FRONT, NETWORK) else self._name(found.flow(gone)[1])
        self._about(run, back, teller, found.flow(gone)[0], gone)
        got = None if answered is None else read(answered)
        if answered is not None and got is not None:
            self._about(run, entry, self._name(got.flow(answered)[1]), got.flow(answered)[0], answered)

    def _without_sum(self, run: Runs, entry: str, frame: bytes, gone: bytes) -> None:
        """The same with other data, so that its sum becomes 0 on its way, which has to be sent as 0xffff (RFC 768)."""
        found = read(frame)
        assert found is not None
        assert found.sum is not None
        data, (at, _), word = bytearray(frame), found.sum, found.transport + 8
        numbers = [
            int.from_bytes(each, "big")
            for each in (frame[at : at + 2], gone[at : at + 2], frame[word : word + 2])
        ]
        check, later, first = numbers
        data[at : at + 2] = ((check - later) % 0xFFFF or 0xFFFF).to_bytes(2, "big")
        data[word : word + 2] = ((first + later) % 0xFFFF).to_bytes(2, "big")
        assert intact(bytes(data))
        sent = self._one(run, entry, bytes(data))
        assert sent is not None
        assert sent[at : at + 2] == b"\xff\xff"

    def _one(self, run: Runs, entry: str, frame: bytes) -> bytes | None:
        self.made.append((entry, frame))
        gone = run(entry, frame)
        assert gone is None or intact(gone) == intact(frame), "by a second opinion, which computes all sums"
        return gone

    def _name(self, address: bytes) -> str:
        text = str(ip_address(address))
        return next((name for name, known in self.scene.edge.addresses.items() if known == text), text)

    def _answer(self, gone: bytes) -> tuple[str, bytes]:
        """From whom it reached, by the way that that one's packets come in."""
        e, found = self.scene.edge, read(gone)
        assert found is not None
        source, destination, protocol, sport, dport = found.flow(gone)
        name, to = self._name(destination), self._name(source)
        way = WORKLOAD if name in NUMBERS else STACK if name == "host" else FRONT
        if protocol == TCP_NUMBER:
            return way, e.tcp(name, to, ACK, sport=dport, dport=sport)
        if protocol == UDP_NUMBER:
            return way, e.udp(name, to, sport=dport, dport=sport)
        if protocol == SCTP_NUMBER:
            return way, e.frame(name, to, SCTP(dport, sport, 9), b"answer")
        return way, e.echo(name, to, reply=True, identifier=sport)

    def _about(self, run: Runs, entry: str, teller: str, to: bytes, about: bytes) -> None:
        """Errors that quote all of a packet, and no more than RFC 792 asks for."""
        if entry == WORKLOAD and teller not in NUMBERS:
            return
        header = 20 if self.scene.edge.family == 4 else 40
        for quoted in (about, about[: 14 + header + 8]):
            self._one(run, entry, self.scene.edge.error(teller, self._name(to), quoted))

    def _odd(self, run: Runs, entry: str, source: str, to: str) -> None:
        e = self.scene.edge
        syn: tuple[Layer | bytes, ...] = (TCP(5001, 80, flags=SYN), b"odd")
        frames = [
            e.frame(source, to, TCP(0, 80, flags=0xFF), b""),
            e.frame(source, to, UDP(1, 53, checksum=0), b"x"),
            e.frame(source, to, UDP(5002, 53, length=9999), b"xy"),
            e.frame(source, to, SCTP(5003, 99), bytes(12)),
            e.frame(source, to, SCTP(5004, 99, checksum=0), bytes(12)),
            e.frame(source, to, SCTP(5005, 99, checksum=99), bytes(13)),
            e.frame(source, to, TCP(5006, 80, flags=SYN, options=bytes([1] * 40)), b"z" * 101),
            e.echo(source, to, identifier=5007, data=b"odd"),
            *fragments(e.frame(source, to, SCTP(5008, 99), bytes(200)), 96, 9),
        ]
        if e.family == 4:
            frames += [e.frame(source, to, *syn, options=bytes([1] * 40)), e.frame(source, to, *syn, ttl=1)]
        else:
            chain = [Extension(kind, bytes(6)) for kind in (0, 60, 43, 60)]
            frames += [e.frame(source, to, chain[0], *syn), e.frame(source, to, *chain, *syn)]
        ends = [e.addresses.get(end, end) for end in (source, to)]
        ethernet = frames[0][:14]
        frames += [ethernet + bytes(link() / each)[14:] for each in odd(e.family, *ends)]
        for frame in frames:
            self._one(run, entry, frame[:LONGEST])


def other_port(rng: random.Random, frame: bytes) -> bytes:
    """Another client's: the same packet with another source port, its sum being as right as before."""
    found = read(frame)
    if found is None or found.sum is None or found.ports is None or found.protocol == SCTP_NUMBER:
        return frame
    data, (at, size), (sum_at, _) = bytearray(frame), found.ports, found.sum
    port, old = rng.randrange(65536), int.from_bytes(frame[at : at + 2], "big")
    check = int.from_bytes(frame[sum_at : sum_at + 2], "big")
    if size == 4 and check:
        added = ((~check & 0xFFFF) + (~old & 0xFFFF) + port) % 0xFFFF
        data[at : at + 2] = port.to_bytes(2, "big")
        data[sum_at : sum_at + 2] = ((~added & 0xFFFF) or 0xFFFF).to_bytes(2, "big")
    return bytes(data)


def broken(rng: random.Random, frame: bytes) -> bytes:
    """Some bytes others, those of headers above all, some missing, some too many; sometimes none of it."""
    data = bytearray(other_port(rng, frame) if rng.random() < 0.3 else frame)
    for _ in range(rng.choice((0, 0, 1, 1, 2, 4))):
        at = rng.randrange(14, min(len(data), 80)) if rng.random() < 0.8 else rng.randrange(12, len(data))
        data[at] = rng.choice((0, 1, 0xFF, 0x45, 80, rng.randrange(256), data[at] ^ 1 << rng.randrange(8)))
    cut = rng.random()
    if cut < 0.15:
        del data[rng.randrange(14, len(data)) :]
    elif cut < 0.25:
        data += rng.randbytes(rng.randrange(1, 20))
    return bytes(data)


def drops(bench: DatapathBench) -> dict[int, int]:
    """How many packets were dropped, by the reason's number."""
    counters, found = bench.map("counters"), {}
    for number in range(100, LIMIT):
        rows = [counters.lookup(number * 2 + direction)["packets"] for direction in (0, 1)]
        if total := int(np.sum(rows)):
            found[number] = total
    return found


def test_no_packet_is_rewritten_wrongly(scene: Scene) -> None:
    bench, rng = scene.edge.bench, random.Random(20260)
    run, templates = Runs(scene), scene.frames()
    before = drops(bench)

    def work() -> None:
        whole = templates.all(run)
        for number in range(COUNT):
            entry, frame = rng.choice(whole)
            run(entry, broken(rng, frame))
            if number % 4096 == 0:
                bench.ring.read()

    bench.inside(work)
    named = {reason.number for reason in (*REASONS, *lb.axoneme_drop_reasons())}
    dropped = Counter(drops(bench)) - Counter(before)
    assert set(dropped) <= named
    assert sum(dropped.values()) == run.seen["shot"] > COUNT // 10, "each drop has a reason"
    assert run.seen["refused"] < COUNT // 10
    few = {kind: scene.oracle.seen[kind] for kind in KINDS if scene.oracle.seen[kind] < 100}
    assert not few, "what is not there is not tried"
