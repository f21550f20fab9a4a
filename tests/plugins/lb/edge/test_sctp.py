"""SCTP through services and masquerading: ports are exchanged, and the checksum is right without a look at the payload."""

from __future__ import annotations

import pytest
from edge_world import Edge, Xdp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packet_world import dropped, words
from scapy.layers.sctp import crc32c as independent  # type: ignore[import-untyped]

from axoneme.core.testing.datapath import Action, Outcome
from axoneme.core.testing.packets import SCTP, IPv4, IPv6, build, fragments, intact, parse
from axoneme.plugins.lb.maps import Scope

pytestmark = pytest.mark.kernel

NUMBER, PORT, BACKEND_PORT = 132, 80, 5000
Ends = tuple[str, int, str, int]


@pytest.fixture
def served(edge: Edge) -> Edge:
    """SCTP of the service's port 80, from outside and from workloads, on b:5000."""
    edge.backend(1, "b", BACKEND_PORT)
    edge.service(1, port=PORT, protocol=NUMBER)
    services = edge.bench.map(f"lb_services{edge.family}")
    key = {"address": {"a": words(edge.vip)}, "port": PORT, "protocol": NUMBER, "scope": int(Scope.EXTERNAL)}
    services.update({**key, "scope": int(Scope.INTERNAL)}, services.lookup(key))
    return edge


def ends(edge: Edge, frame: bytes) -> Ends:
    """Of a frame whose checksums are right, by a second opinion too."""
    assert intact(frame)
    packet = parse(frame)
    ip, sctp = packet[IPv4] if edge.family == 4 else packet[IPv6], packet[SCTP]
    body = bytearray(build(sctp, packet.payload))
    if sctp.checksum:
        body[8:12] = bytes(4)
        assert sctp.checksum.to_bytes(4, "little") == independent(bytes(body)).to_bytes(4, "big")
    return ip.src, sctp.sport, ip.dst, sctp.dport


def gone_on(edge: Edge, outcome: Outcome) -> Ends:
    assert outcome.action is Action.REDIRECT, outcome
    return ends(edge, outcome.frame)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=1400), sport=st.integers(1, 65535), tag=st.integers(0, 2**32 - 1))
def test_of_any_length_there_and_back(served: Edge, body: bytes, sport: int, tag: int) -> None:
    a, b = served.addresses["a"], served.addresses["b"]
    there = served.send(served.frame("a", served.vip, SCTP(sport, PORT, tag), body))
    assert gone_on(served, there) == (a, sport, b, BACKEND_PORT)
    back = served.send(served.frame("b", "a", SCTP(BACKEND_PORT, sport, tag), body))
    assert gone_on(served, back) == (served.vip, PORT, a, sport)


def test_the_longest(served: Edge) -> None:
    """Of those that a test-run takes; the tables are tried up to 65,535."""
    there = served.send(served.frame("a", served.vip, SCTP(1000, PORT), bytes(range(250)) * 12))
    assert gone_on(served, there)[3] == BACKEND_PORT


def test_from_outside_xdp_leaves_it_to_the_classifier(served: Edge) -> None:
    frame = served.frame("world", served.vip, SCTP(1000, PORT, 7), b"chunks")
    early = served.enter(frame)
    assert (early.verdict, early.frame) == (Xdp.PASS, frame)
    world, b = served.addresses["world"], served.addresses["b"]
    assert gone_on(served, served.arrive(frame)) == (world, 1000, b, BACKEND_PORT)


def test_masqueraded_ports_and_answers(edge: Edge) -> None:
    world = edge.addresses["world"]
    there = edge.send(edge.frame("a", "world", SCTP(40000, 3868), b"data"))
    source, port, *rest = gone_on(edge, there)
    assert (source, rest) == (edge.node, [world, 3868])
    assert 1024 <= port <= 29999
    back = edge.arrive(edge.frame("world", edge.node, SCTP(3868, port), b"answer"))
    assert gone_on(edge, back) == (world, 3868, edge.addresses["a"], 40000)


def test_a_wrong_sum_stays_wrong_and_none_stays_none(served: Edge) -> None:
    wrong = served.send(served.frame("a", served.vip, SCTP(1000, PORT, checksum=12345), b"x"))
    assert wrong.action is Action.REDIRECT
    assert not intact(wrong.frame)
    none = served.send(served.frame("a", served.vip, SCTP(1001, PORT, checksum=0), b"x"))
    assert parse(none.frame)[SCTP].checksum == 0
    assert parse(none.frame)[SCTP].dport == BACKEND_PORT


def test_a_trailer_is_not_part_of_it(served: Edge) -> None:
    frame = served.frame("a", served.vip, SCTP(1000, PORT), b"x")
    outcome = served.send(frame + bytes(9))
    assert gone_on(served, outcome)[3] == BACKEND_PORT


def test_fragments_are_refused(served: Edge) -> None:
    """The first one has the sum of all, and does not know how much that is."""
    frame = served.frame("a", served.vip, SCTP(1000, PORT), bytes(400))
    assert gone_on(served, served.send(frame))[3] == BACKEND_PORT
    for piece in fragments(frame, 200):
        assert dropped(served.send(piece), "UNSUPPORTED_PROTOCOL_FOR_NAT_MASQUERADE")


def test_an_error_about_it_is_as_its_sender_knows_it(served: Edge) -> None:
    """Whole or cut, its own checksum included: that of a packet whose end is not there follows from its length."""
    sent = served.frame("a", served.vip, SCTP(1000, PORT, 9), bytes(300))
    got = served.send(sent)
    ip = 20 if served.family == 4 else 40
    for size in (8, 12, 100, 312):
        error = served.send(served.error("b", "a", got.frame[: 14 + ip + size]))
        assert error.action is Action.REDIRECT, (size, error)
        assert intact(error.frame)
        quoted, at = sent[14:], 14 + ip + 8
        carried = error.frame[at : at + ip + size]
        assert carried[ip:] == quoted[ip : ip + size]
