"""Services for the outside, before there is an skb: to backends elsewhere and back."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator

import attrs
import numpy as np
import pytest
from edge_world import ROUTER_MAC, Edge, FrameOutcome, Xdp
from packet_world import dropped, words

from axoneme.core.datapath.abi import EventType, NextHop
from axoneme.core.testing.datapath import Action
from axoneme.core.testing.packets import ACK, FIN, RST, SYN, TCP, UDP, Ethernet, IPv4, IPv6, intact, parse
from axoneme.plugins.lb.maps import Algorithm, BackendFlag, ServiceFlag

pytestmark = pytest.mark.kernel

FIRST, LAST = 1024, 29999

#: `LB_CHOICE` in stages/choose.h.
CHOICE = 0x6C62A12E


def ends(edge: Edge, outcome: FrameOutcome) -> tuple[str, int, str, int]:
    """Both ends of a frame that was sent on, its checksums being right."""
    assert outcome.verdict is Xdp.TX, outcome
    assert intact(outcome.frame)
    packet = parse(outcome.frame)
    assert packet[Ethernet].dst == ROUTER_MAC
    ip = packet[IPv4] if edge.family == 4 else packet[IPv6]
    assert (ip.ttl if isinstance(ip, IPv4) else ip.hop_limit) == 63
    return ip.src, packet.layers[2].sport, ip.dst, packet.layers[2].dport  # type: ignore[attr-defined]


def passed(outcome: FrameOutcome, frame: bytes) -> bool:
    """It is the classifier's, as it came."""
    return outcome.verdict is Xdp.PASS and outcome.frame == frame


@pytest.fixture
def remote(edge: Edge) -> Edge:
    """One service with one backend, which is elsewhere."""
    edge.backend(1, "remote", 8080)
    edge.service(1)
    edge.service(1, port=53, protocol=17)
    return edge


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_there_and_back(remote: Edge, protocol: str) -> None:
    make, port = (remote.tcp, 80) if protocol == "tcp" else (remote.udp, 53)
    world, backend = remote.addresses["world"], remote.addresses["remote"]
    ask = make("world", remote.vip, dport=port, **({"flags": SYN} if protocol == "tcp" else {}))
    outcome = remote.enter(ask)
    source, given, *to = ends(remote, outcome)
    assert (source, to) == (remote.node, [backend, 8080])
    assert FIRST <= given <= LAST
    (event,) = outcome.events
    assert (event["type"], event["service"], event["dport"], event["next_hop"]) == (
        EventType.NEW, 7, 8080, NextHop.DEVICE,
    )  # fmt: skip
    answer = make("remote", remote.node, sport=8080, dport=given)
    assert ends(remote, remote.enter(answer)) == (remote.vip, port, world, 40000)
    again = remote.enter(make("world", remote.vip, dport=port))
    assert ends(remote, again) == (remote.node, given, backend, 8080)
    assert not len(again.events)
    assert remote.entries() == 2


def test_the_classifier_knows_what_xdp_opened(remote: Edge) -> None:
    """Packets that change the connection's state are its business, and it finds the connection."""
    source = ends(remote, remote.enter(remote.tcp("world", remote.vip, SYN)))
    synack = remote.tcp("remote", remote.node, SYN | ACK, sport=8080, dport=source[1])
    assert passed(remote.enter(synack), synack)
    back = remote.arrive(synack)
    assert back.action is Action.REDIRECT
    assert intact(back.frame)
    assert parse(back.frame).layers[1].dst == remote.addresses["world"]  # type: ignore[attr-defined]
    assert (
        ends(remote, remote.enter(remote.tcp("remote", remote.node, sport=8080, dport=source[1])))[3] == 40000
    )
    fin = remote.tcp("world", remote.vip, FIN | ACK)
    assert passed(remote.enter(fin), fin)
    there = remote.arrive(fin)
    assert parse(there.frame).layers[2].sport == source[1]  # type: ignore[attr-defined]
    answer = remote.tcp("remote", remote.node, FIN | ACK, sport=8080, dport=source[1])
    (closed,) = remote.arrive(answer).events
    assert (closed["type"], closed["service"]) == (EventType.CLOSE, 7)


def test_xdp_goes_on_with_what_the_classifier_opened(remote: Edge) -> None:
    opened = remote.arrive(remote.tcp("world", remote.vip, SYN))
    assert opened.action is Action.REDIRECT
    assert intact(opened.frame)
    packet = parse(opened.frame)
    assert packet.layers[1].src == remote.node  # type: ignore[attr-defined]
    given = packet.layers[2].sport  # type: ignore[attr-defined]
    assert ends(remote, remote.enter(remote.tcp("world", remote.vip))) == (
        remote.node, given, remote.addresses["remote"], 8080,
    )  # fmt: skip


def test_two_clients_with_the_same_port(remote: Edge) -> None:
    one = ends(remote, remote.enter(remote.tcp("world", remote.vip, SYN, sport=2000)))
    other = ends(remote, remote.enter(remote.tcp("router", remote.vip, SYN, sport=2000)))
    assert one[1] == 2000
    assert other[1] != 2000
    back = remote.enter(remote.tcp("remote", remote.node, sport=8080, dport=other[1]))
    assert ends(remote, back)[2:] == (remote.addresses["router"], 2000)


def test_a_local_backend_is_the_classifiers(edge: Edge) -> None:
    """XDP tells it whom it chose, so that nothing is chosen twice; the workload sees the client's own address."""
    edge.backend(1, "a", 8080)
    edge.backend(2, "b", 8080)
    edge.service(1, 2, algorithm=int(Algorithm.ROUND_ROBIN))
    told = []
    for sport in range(40000, 40004):
        frame = edge.tcp("world", edge.vip, SYN, sport=sport)
        outcome = edge.enter(frame)
        assert passed(attrs.evolve(outcome, frame=outcome.frame[8:]), frame)
        told.append(struct.unpack("=II", outcome.frame[:8]))
    assert {magic for magic, _ in told} == {CHOICE}
    assert sorted(backend for _, backend in told) == [1, 1, 2, 2]
    outcome = edge.arrive(edge.tcp("world", edge.vip, SYN))
    assert outcome.action is Action.REDIRECT
    packet = parse(outcome.frame)
    assert packet.layers[1].src == edge.addresses["world"]  # type: ignore[attr-defined]
    assert packet.layers[2].dport == 8080  # type: ignore[attr-defined]
    chosen = "a" if packet[Ethernet].dst.endswith("01") else "b"
    back = edge.send(edge.tcp(chosen, "world", SYN | ACK, sport=8080, dport=40000))
    assert back.action is Action.REDIRECT
    assert intact(back.frame)
    answer = parse(back.frame)
    assert answer.layers[1].src == edge.vip  # type: ignore[attr-defined]
    assert answer.layers[2].sport == 80  # type: ignore[attr-defined]


def test_the_same_client_gets_the_same_backend_by_both_ways(edge: Edge) -> None:
    """Maglev's choice depends on the packet alone."""
    edge.backend(1, "remote", 8080)
    edge.backend(2, "10.1.0.8" if edge.family == 4 else "fd01::8", 8080)
    edge.service(*([1, 2] * 64))
    seen = set()
    for sport in range(2000, 2016):
        by_xdp = ends(edge, edge.enter(edge.tcp("world", edge.vip, SYN, sport=sport)))
        edge.table.clear()
        frame = edge.arrive(edge.tcp("world", edge.vip, SYN, sport=sport)).frame
        assert parse(frame).layers[1].dst == by_xdp[2]  # type: ignore[attr-defined]
        seen.add(by_xdp[2])
    assert len(seen) == 2


@pytest.mark.parametrize(
    "what", ["source range", "no backends", "no service", "no packet that opens", "fragment"]
)
def test_what_is_not_xdps_business_passes_as_it_came(remote: Edge, what: str) -> None:
    frame = remote.tcp("world", remote.vip, SYN)
    if what == "source range":
        remote.service(1, flags=int(ServiceFlag.SOURCE_RANGES))
        assert dropped(remote.arrive(frame), "177")
    elif what == "no backends":
        remote.service()
        assert dropped(remote.arrive(frame), "158")
    elif what == "no service":
        frame = remote.tcp("world", remote.vip, SYN, dport=81)
    elif what == "no packet that opens":
        frame = remote.tcp("world", remote.vip, RST)
    elif remote.family == 4:
        frame = remote.tcp("world", remote.vip, SYN, more=True)
    assert (remote.family == 6 and what == "fragment") or passed(remote.enter(frame), frame)


def test_source_ranges_admit_those_that_are_in_them(remote: Edge) -> None:
    remote.service(1, flags=int(ServiceFlag.SOURCE_RANGES))
    width = 24 if remote.family == 4 else 64
    key = {"length": 32 + width, "service": 7, "address": {"a": words(remote.addresses["world"])}}
    remote.bench.map(f"lb_sources{remote.family}").update(key, 1)
    assert ends(remote, remote.enter(remote.tcp("world", remote.vip, SYN)))[0] == remote.node
    remote.bench.map(f"lb_sources{remote.family}").delete(key)


def test_a_hop_too_many_is_the_stacks(remote: Edge) -> None:
    remote.enter(remote.tcp("world", remote.vip, SYN))
    frame = remote.tcp("world", remote.vip, ttl=1)
    assert passed(remote.enter(frame), frame)


def test_udp_without_a_checksum_keeps_none(edge: Edge) -> None:
    if edge.family == 6:
        return  # RFC 8200 8.1: there is always one
    edge.backend(1, "remote", 5353)
    edge.service(1, port=53, protocol=17)
    frame = bytearray(edge.udp("world", edge.vip))
    frame[40:42] = b"\0\0"
    outcome = edge.enter(bytes(frame))
    assert outcome.verdict is Xdp.TX
    assert outcome.frame[40:42] == b"\0\0"


def test_checksums_hold_for_every_port(remote: Edge) -> None:
    """Every carry of the one's complement sums is met by some of these."""
    generator = np.random.default_rng(20)
    for sport in 1 + generator.permutation(65535)[:300]:
        for frame in (
            remote.tcp("world", remote.vip, SYN, sport=int(sport)),
            remote.udp("world", remote.vip, sport=int(sport)),
        ):
            outcome = remote.enter(frame)
            given = ends(remote, outcome)[1]
            make, port = (
                (remote.tcp, 80) if frame[23 if remote.family == 4 else 20] == 6 else (remote.udp, 53)
            )
            back = remote.enter(make("remote", remote.node, sport=8080, dport=given))
            assert ends(remote, back) == (remote.vip, port, remote.addresses["world"], sport)


# Backends that answer clients themselves.


@pytest.fixture
def direct(edge: Edge) -> Edge:
    """Two backends elsewhere and one here, equally often in a table of Maglev's."""
    edge.backend(1, "remote", 8080)
    edge.backend(2, "10.1.0.8" if edge.family == 4 else "fd01::8", 8080)
    edge.backend(3, "a", 8080)
    edge.service(*([1, 2, 3] * 64), flags=int(ServiceFlag.DSR))
    return edge


def opened(edge: Edge, sport: int, flags: int = SYN) -> FrameOutcome:
    return edge.enter(edge.tcp("world", edge.vip, flags, sport=sport))


def test_frames_go_on_as_they_are(direct: Edge) -> None:
    """But for MAC addresses and a hop; what is for a workload here is the classifier's, as ever."""
    passed_on = 0
    for sport in range(2000, 2040):
        frame = direct.tcp("world", direct.vip, SYN, sport=sport)
        outcome = direct.enter(frame)
        if outcome.verdict is Xdp.TX:
            passed_on += 1
            assert ends(direct, outcome) == (direct.addresses["world"], sport, direct.vip, 80)
            fin = opened(direct, sport, FIN | ACK)
            assert fin.verdict is Xdp.TX, "every packet of it goes there"
        else:
            assert passed(outcome, frame)
            there = direct.arrive(frame)
            assert there.action is Action.REDIRECT
            assert parse(there.frame).layers[1].dst == direct.addresses["a"]  # type: ignore[attr-defined]
    assert 15 < passed_on < 38
    assert len(direct.bench.map(f"lb_ways{direct.family}").items()[0]) == passed_on


def test_the_backends_node_chooses_the_same(direct: Edge) -> None:
    """Seen from there: what the first node gave to a backend, this one gives to it, too."""
    ways = direct.bench.map(f"lb_ways{direct.family}")
    given = {}
    for sport in range(2000, 2040):
        if opened(direct, sport).verdict is Xdp.TX:
            given[sport] = True
    keys, values = ways.items()
    chosen = dict(zip(keys["sport"].tolist(), values["number"].tolist(), strict=True))
    assert chosen.keys() == given.keys()
    # On the node of backend 1 that one is a workload.
    direct.backend(1, "b", 8080)
    ways.clear()
    for sport, number in chosen.items():
        frame = direct.tcp("world", direct.vip, SYN, sport=sport)
        outcome = direct.enter(frame)
        assert (outcome.verdict is Xdp.PASS) == (number == 1)
        if number == 1:
            there = direct.arrive(frame)
            assert parse(there.frame).layers[1].dst == direct.addresses["b"]  # type: ignore[attr-defined]
            back = direct.send(direct.tcp("b", "world", SYN | ACK, sport=8080, dport=sport))
            assert back.action is Action.REDIRECT
            assert parse(back.frame).layers[1].src == direct.vip, "the client's answer"  # type: ignore[attr-defined]


def test_connections_keep_their_backend_when_the_table_changes(direct: Edge) -> None:
    ways = direct.bench.map(f"lb_ways{direct.family}")
    sports = [sport for sport in range(2000, 2040) if opened(direct, sport).verdict is Xdp.TX]
    before = sorted(map(str, zip(*ways.items(), strict=True)))
    direct.service(*([2, 1, 3] * 64), flags=int(ServiceFlag.DSR))
    for sport in sports:
        assert opened(direct, sport, ACK).verdict is Xdp.TX
    assert sorted(map(str, zip(*ways.items(), strict=True))) == before


def test_a_number_that_another_backend_has_by_now_is_no_way(direct: Edge) -> None:
    """The connection is over, and what still comes of it is not for a stranger: he may not even be of this service."""
    sports = [sport for sport in range(2000, 2040) if opened(direct, sport).verdict is Xdp.TX]
    keys, values = direct.bench.map(f"lb_ways{direct.family}").items()
    first = [int(port) for port in keys["sport"][values["number"] == 1]]
    assert set(first) < set(sports)
    for number, port in ((1, 8080), (4, 8080)):  # 1 is a workload here now, and 4 what it was elsewhere
        direct.backend(number, "b" if number == 1 else "remote", port)
    direct.service(*([4, 2, 3] * 64), flags=int(ServiceFlag.DSR))
    for sport in first:
        assert opened(direct, sport, ACK).verdict is Xdp.TX, "not the workload's"
    _, values = direct.bench.map(f"lb_ways{direct.family}").items()
    assert set(values["number"].tolist()) == {2, 4}
    direct.backend(4, "remote", 8081)
    direct.service(*([3] * 64), flags=int(ServiceFlag.DSR))
    assert {opened(direct, sport, ACK).verdict for sport in first} == {Xdp.PASS}, (
        "another port is another one"
    )


def large(edge: Edge, protocol: str) -> bytes:
    """A packet of a connection that goes on, larger than 1,280 bytes."""
    layer = TCP(2000, 80, flags=ACK) if protocol == "tcp" else UDP(2000, 53)
    return edge.frame("world", edge.vip, layer, bytes(1400))


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_what_is_too_large_for_the_way_is_not_sent_under_the_nodes_address(edge: Edge, protocol: str) -> None:
    """The backend, which answers the client itself, would not know whose it is."""
    edge.backend(1, "remote", 8080)
    for port, number in ((80, 6), (53, 17)):
        edge.service(1, port=port, protocol=number, flags=int(ServiceFlag.DSR))
    first = edge.tcp("world", edge.vip, SYN, sport=2000) if protocol == "tcp" else large(edge, protocol)
    assert edge.arrive(first).action is Action.REDIRECT
    with uplink_mtu(edge, 1280):
        outcome = edge.arrive(large(edge, protocol))
        assert dropped(outcome, "FIB_LOOKUP_FAILED")
    assert edge.entries() == 0
    assert edge.arrive(large(edge, protocol)).action is Action.REDIRECT


def test_a_connection_without_a_way_is_not_moved_to_another_one(edge: Edge) -> None:
    """A first packet may go by this node's own address; TCP's later ones are of a connection that the backend answers."""
    edge.backend(1, "remote", 8080)
    edge.service(1, flags=int(ServiceFlag.DSR))
    assert edge.arrive(edge.tcp("world", edge.vip, SYN)).action is Action.REDIRECT
    edge.backend(1, "192.168.77.7" if edge.family == 4 else "fd77::7", 8080)  # nobody knows where that is
    assert dropped(edge.arrive(edge.tcp("world", edge.vip, ACK)), "FIB_LOOKUP_FAILED")
    assert edge.entries() == 0


@contextlib.contextmanager
def uplink_mtu(edge: Edge, mtu: int) -> Iterator[None]:
    from pyroute2 import IPRoute

    def set_to(value: int) -> None:
        with IPRoute() as route:
            route.link("set", index=edge.bench.link("uplink"), mtu=value)

    edge.bench.inside(lambda: set_to(mtu))
    try:
        yield
    finally:
        edge.bench.inside(lambda: set_to(1500))


def test_after_the_handshake_both_directions_are_xdps(remote: Edge) -> None:
    """The answer to the first packet is the classifier's. What it decides of one direction does not undo the other one."""
    given = ends(remote, remote.enter(remote.tcp("world", remote.vip, SYN)))[1]
    synack = remote.tcp("remote", remote.node, SYN | ACK, sport=8080, dport=given)
    assert passed(remote.enter(synack), synack)
    assert remote.arrive(synack).action is Action.REDIRECT
    for _ in range(3):
        assert remote.enter(remote.tcp("world", remote.vip)).verdict is Xdp.TX
        answer = remote.tcp("remote", remote.node, sport=8080, dport=given)
        assert remote.enter(answer).verdict is Xdp.TX


def test_what_was_decided_under_other_rules_is_decided_anew(remote: Edge) -> None:
    """A flow of datagrams whose backend is gone goes to another one, as it does without XDP."""
    other = "10.1.0.8" if remote.family == 4 else "fd01::8"
    ask = remote.udp("world", remote.vip)
    assert ends(remote, remote.enter(ask))[2] == remote.addresses["remote"]
    remote.backend(2, other, 8080)
    remote.service(2, port=53, protocol=17)
    remote.backend(1, "remote", 8080, BackendFlag(0))
    remote.bench.revision += 1
    assert passed(remote.enter(ask), ask)
    assert parse(remote.arrive(ask).frame).layers[1].dst == other  # type: ignore[attr-defined]
    assert ends(remote, remote.enter(ask))[2] == other


def test_nobody_outside_is_a_workload_or_the_node(remote: Edge) -> None:
    """What claims to be a workload is not served, and left to the stack; what claims to be the node is dropped."""
    for source in ("a", "host"):
        frame = remote.tcp(source, remote.vip, SYN)
        assert passed(remote.enter(frame), frame)
        outcome = remote.arrive(frame)
        if source == "host":
            assert dropped(outcome, "INVALID_SOURCE_IP")
        else:
            assert (outcome.action, outcome.frame) == (Action.PASS, frame)
    assert remote.entries() == 0
