"""Services at the packet, by the real programs: what goes out, what comes back, and what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import attrs
import pytest
from packet_world import NUMBERS, STRATEGIES, Action, dropped, mac_of, only, words
from service_world import UDP_PROTOCOL, LateBench, Services, make_bench, populate, services_of

from axoneme.core.datapath.abi import ConnectionFlag, EventType
from axoneme.core.settings import DatapathSettings
from axoneme.core.testing.datapath import DatapathBench
from axoneme.core.testing.packets import (
    ACK,
    FIN,
    RST,
    SYN,
    TCP,
    UDP,
    Ethernet,
    build,
    fragments,
    intact,
    parse,
)
from axoneme.plugins.lb.maps import Algorithm, BackendFlag, ServiceFlag

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module", params=STRATEGIES)
def bench(request: pytest.FixtureRequest) -> Iterator[DatapathBench]:
    with make_bench(request.param) as made:
        populate(made)
        yield made


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def s(request: pytest.FixtureRequest, bench: DatapathBench) -> Services:
    """vip:80 in front of b:8080."""
    services = services_of(bench, request.param)
    services.backend(1, "b")
    services.service("vip", 7, 1)
    services.service("vip", 8, 1, port=53, protocol=UDP_PROTOCOL)
    return services


# There and back.


def test_a_connection_goes_to_the_backend_and_its_answers_come_from_the_service(s: Services) -> None:
    first = s.world.send(s.world.tcp("a", "vip", SYN))
    assert (first.action, s.ends(first.frame)) == (Action.REDIRECT, ("a", 40000, "b", 8080))
    assert intact(first.frame)
    event = only(first.events)
    assert (event["type"], event["service"]) == (EventType.NEW, 7)
    assert (event["source_identity"], event["destination_identity"]) == (256, 257)
    assert (event["sport"], event["dport"]) == (40000, 8080)
    answer = s.world.send(s.world.tcp("b", "a", SYN | ACK, sport=8080, dport=40000))
    assert (answer.action, s.ends(answer.frame)) == (Action.REDIRECT, ("vip", 80, "a", 40000))
    assert intact(answer.frame)
    later = s.world.send(s.world.tcp("a", "vip"))
    assert (s.ends(later.frame), intact(later.frame), len(later.events)) == (("a", 40000, "b", 8080), True, 0)


def test_the_decision_is_about_the_backend(s: Services) -> None:
    s.world.gate(reason=133)
    refused = s.world.send(s.world.tcp("a", "vip", SYN))
    assert dropped(refused, "POLICY_DENIED")
    event = only(refused.events)
    assert (event["destination_identity"], event["destination_endpoint"], event["dport"]) == (257, 2, 8080)
    assert s.world.entries() == 0


def test_a_closed_connection_is_told_with_both_directions_counters(s: Services) -> None:
    s.world.send(s.world.tcp("a", "vip", SYN))
    s.world.send(s.world.tcp("b", "a", SYN | ACK, sport=8080, dport=40000))
    s.world.send(s.world.tcp("a", "vip", FIN | ACK))
    event = only(s.world.send(s.world.tcp("b", "a", FIN | ACK, sport=8080, dport=40000)).events)
    assert (event["type"], event["service"], event["reply"]) == (EventType.CLOSE, 7, 1)
    assert (event["packets"], event["reply_packets"]) == (2, 2)


@pytest.mark.parametrize("established", [False, True])
def test_a_decision_anew_keeps_the_backend(s: Services, established: bool) -> None:
    s.world.send(s.world.tcp("a", "vip", SYN))
    s.service("vip", 7)  # no backends any more
    s.world.bench.revision = 2
    if established:
        answer = s.world.send(s.world.tcp("b", "a", ACK, sport=8080, dport=40000))
        assert (s.ends(answer.frame), intact(answer.frame)) == (("vip", 80, "a", 40000), True)
    later = s.world.send(s.world.tcp("a", "vip"))
    assert (s.ends(later.frame), intact(later.frame)) == (("a", 40000, "b", 8080), True)
    assert s.world.entries() == 2


def test_datagrams(s: Services) -> None:
    there = s.world.send(s.world.udp("a", "vip"))
    assert (s.ends(there.frame), intact(there.frame)) == (("a", 40000, "b", 8080), True)
    back = s.world.send(s.world.udp("b", "a", sport=8080, dport=40000))
    assert (s.ends(back.frame), intact(back.frame)) == (("vip", 53, "a", 40000), True)


def test_a_datagram_without_a_checksum_gets_none(s: Services) -> None:
    if s.world.family == 6:
        pytest.skip("IPv6 has no such datagrams")
    sent = parse(s.world.udp("a", "vip"))
    bare = build(*(attrs.evolve(x, checksum=0) if isinstance(x, UDP) else x for x in sent.all))
    out = s.world.send(bare)
    assert s.ends(out.frame) == ("a", 40000, "b", 8080)
    assert parse(out.frame)[UDP].checksum == 0


def test_fragments_follow_the_first_one(s: Services) -> None:
    whole = s.world.frame("a", "vip", UDP(40000, 53), bytes(range(256)) * 4)
    pieces = [s.world.send(piece).frame for piece in fragments(whole, 512)]
    assert len(pieces) > 1
    ip = [parse(piece).layers[1] for piece in pieces]
    assert {one.dst for one in ip} == {s.world.addresses["b"]}  # type: ignore[attr-defined]
    again = b"".join(parse(piece).payload for piece in pieces[1:])
    assert again in whole, "what has no ports is left alone"
    if s.world.family == 4:
        assert all(intact_header(piece) for piece in pieces)


def intact_header(frame: bytes) -> bool:
    total = sum(int.from_bytes(frame[at : at + 2], "big") for at in range(14, 34, 2))
    return total % 0xFFFF == 0


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("stale", [False, True])
def test_an_error_about_a_translated_packet_speaks_of_what_was_sent(
    s: Services, protocol: type, stale: bool
) -> None:
    frame = s.world.tcp("a", "vip", SYN) if protocol is TCP else s.world.udp("a", "vip")
    seen = s.world.send(frame).frame
    s.world.bench.revision += stale
    error = s.world.send(s.world.error("b", "a", seen))
    assert error.action is Action.REDIRECT
    assert intact(error.frame)
    outer = parse(error.frame)
    ip = outer.layers[1]
    assert (ip.src, ip.dst) == (s.world.addresses["vip"], s.world.addresses["a"])  # type: ignore[attr-defined]
    about = outer.payload
    original = frame[14:]
    ttl = 8 if s.world.family == 4 else 7
    hops = {ttl, *((10, 11) if s.world.family == 4 else ())}
    assert [
        at for at, (x, y) in enumerate(zip(about, original, strict=False)) if x != y and at not in hops
    ] == []
    if s.world.family == 4:
        assert intact_header(bytes(14) + about)


def test_an_error_about_an_answer_reaches_the_backend_in_its_own_words(s: Services) -> None:
    s.world.send(s.world.udp("a", "vip"))
    sent = s.world.udp("b", "a", sport=8080, dport=40000)
    got = s.world.send(sent).frame
    error = s.world.send(s.world.error("a", "vip", got))
    assert error.action is Action.REDIRECT
    assert intact(error.frame)
    ip = parse(error.frame).layers[1]
    assert (ip.src, ip.dst) == (s.world.addresses["a"], s.world.addresses["b"])  # type: ignore[attr-defined]
    transport = 20 if s.world.family == 4 else 40
    assert parse(error.frame).payload[transport : transport + 8] == sent[14 + transport :][:8]


def test_options_and_extension_headers_are_stepped_over(s: Services) -> None:
    if s.world.family == 4:
        frame = s.world.frame("a", "vip", TCP(40000, 80, flags=SYN), b"x", options=bytes([1] * 8))
    else:
        from axoneme.core.testing.packets import Extension

        frame = s.world.frame("a", "vip", Extension(60, bytes(6)), TCP(40000, 80, flags=SYN), b"x")
    for _ in range(2):
        out = s.world.send(frame)
        assert (s.ends(out.frame), intact(out.frame)) == (("a", 40000, "b", 8080), True)


# To itself.


def test_a_workload_reaches_itself_through_a_service(s: Services) -> None:
    s.backend(2, "a")
    s.service("vip2", 9, 2)
    out = s.world.send(s.world.tcp("a", "vip2", SYN))
    assert (s.ends(out.frame), intact(out.frame)) == (("loopback", 40000, "a", 8080), True)
    assert only(out.events)["source_endpoint"] == only(out.events)["destination_endpoint"] == 1
    back = s.world.send(s.world.tcp("a", "loopback", SYN | ACK, sport=8080, dport=40000))
    assert (s.ends(back.frame), intact(back.frame)) == (("vip2", 80, "a", 40000), True)


# Nothing to go to.


def test_a_service_without_backends_drops(s: Services) -> None:
    s.service("vip2", 9)
    refused = s.world.send(s.world.tcp("a", "vip2", SYN))
    assert refused.action is Action.SHOT
    event = only(refused.events)
    assert (event["reason"], event["source_identity"], event["service"]) == (158, 256, 9)


def test_other_ports_of_a_services_address_have_no_service(s: Services) -> None:
    assert s.world.send(s.world.tcp("a", "vip", SYN, dport=81)).action is Action.PASS
    s.map("lb_services").update(s.frontend("vip", 0, 0), {"number": 0, "flags": int(ServiceFlag.NO_SERVICE)})
    s.world.reset()
    refused = s.world.send(s.world.tcp("a", "vip", SYN, dport=81))
    assert (refused.action, only(refused.events)["reason"]) == (Action.SHOT, 158)
    assert s.world.send(s.world.tcp("a", "vip", SYN)).action is Action.REDIRECT


def test_a_connection_that_was_there_before_the_service_stays_what_it_is(s: Services) -> None:
    s.world.open("a", "c")
    s.service("c", 9, 1)
    s.world.bench.revision = 2
    out = s.world.send(s.world.tcp("a", "c"))
    assert s.ends(out.frame) == ("a", 40000, "c", 80)


# Backends come and go.


def test_a_terminating_backend_keeps_its_connections(s: Services) -> None:
    s.world.send(s.world.udp("a", "vip"))
    s.backend(1, "b", flags=BackendFlag.USED | BackendFlag.TERMINATING)
    s.backend(2, "c")
    s.service("vip", 8, 2, port=53, protocol=UDP_PROTOCOL)
    s.world.bench.revision = 2
    assert s.ends(s.world.send(s.world.udp("a", "vip")).frame)[2] == "b"
    assert s.ends(s.world.send(s.world.udp("a", "vip", sport=40001)).frame)[2] == "c"


def test_datagrams_of_a_backend_that_is_gone_go_to_another(s: Services) -> None:
    s.world.send(s.world.udp("a", "vip"))
    s.no_backend(1)
    s.backend(2, "c")
    s.service("vip", 8, 2, port=53, protocol=UDP_PROTOCOL)
    s.world.bench.revision = 2
    out = s.world.send(s.world.udp("a", "vip"))
    assert (s.ends(out.frame), intact(out.frame)) == (("a", 40000, "c", 8080), True)
    assert [int(event["type"]) for event in out.events] == [EventType.CLOSE, EventType.NEW]
    back = s.world.send(s.world.udp("c", "a", sport=8080, dport=40000))
    assert s.ends(back.frame) == ("vip", 53, "a", 40000)


@pytest.mark.parametrize(("moved", "forgotten"), [(False, False), (True, False), (True, True)])
def test_a_late_answer_of_a_backend_that_is_gone_does_not_lead_the_client_back(
    s: Services, moved: bool, forgotten: bool
) -> None:
    """The answer is decided anew as well, and its entry is of a connection that is no more.

    :param moved: the client has sent something since; else the answer is the first packet after the change.
    :param forgotten: the client's own entry had to give way just before.
    """
    s.world.send(s.world.udp("a", "vip"))
    s.no_backend(1)
    s.backend(2, "c")
    s.service("vip", 8, 2, port=53, protocol=UDP_PROTOCOL)
    s.world.bench.revision = 2
    if moved:
        s.world.send(s.world.udp("a", "vip"))
    if forgotten:
        s.world.forget("a", "vip", 40000, 53, UDP_PROTOCOL)
    late = s.world.send(s.world.udp("b", "a", sport=8080, dport=40000))
    assert s.ends(late.frame) == ("vip", 53, "a", 40000), "it was on its way already"
    out = s.world.send(s.world.udp("a", "vip"))
    assert s.ends(out.frame) == ("a", 40000, "c", 8080)
    assert parse(out.frame)[Ethernet].dst == mac_of(NUMBERS["c"]), "and that is where it goes"


@pytest.mark.parametrize(("flags", "where"), [(ACK, "b"), (SYN, "c")])
def test_a_tcp_connection_moves_only_before_it_is_one(s: Services, flags: int, where: str) -> None:
    s.world.send(s.world.tcp("a", "vip", SYN))
    s.no_backend(1)
    s.backend(2, "c")
    s.service("vip", 7, 2)
    s.world.bench.revision = 2
    out = s.world.send(s.world.tcp("a", "vip", flags))
    assert (s.ends(out.frame)[2], intact(out.frame)) == (where, True)


def test_somebody_elses_packet_moves_no_connection(s: Services) -> None:
    s.world.send(s.world.udp("a", "vip"))
    s.no_backend(1)
    s.service("vip", 8, port=53, protocol=UDP_PROTOCOL)
    s.world.bench.revision = 2
    before = s.world.snapshot()
    assert dropped(s.world.send(s.world.udp("a", "vip"), sender="c"), "INVALID_SOURCE_IP")
    assert s.world.snapshot() == before


@pytest.mark.parametrize("end", [RST, FIN])
def test_the_next_connection_of_the_same_ports_chooses_anew(s: Services, end: int) -> None:
    s.world.send(s.world.tcp("a", "vip", SYN))
    s.world.send(s.world.tcp("a", "vip", end | ACK))
    s.backend(2, "c")
    s.service("vip", 7, 2)
    out = s.world.send(s.world.tcp("a", "vip", SYN))
    assert (s.ends(out.frame), intact(out.frame)) == (("a", 40000, "c", 8080), True)
    assert s.world.entries() == 2, "nothing of the one before is left"
    back = s.world.send(s.world.tcp("c", "a", SYN | ACK, sport=8080, dport=40000))
    assert s.ends(back.frame) == ("vip", 80, "a", 40000)


@pytest.mark.parametrize("end", [RST, FIN])
def test_the_next_connection_to_the_same_backend_takes_the_entries_over(s: Services, end: int) -> None:
    s.world.send(s.world.tcp("a", "vip", SYN))
    s.world.send(s.world.tcp("b", "a", SYN | ACK, sport=8080, dport=40000))
    over = s.world.send(s.world.tcp("a", "vip", end | ACK))
    s.service("vip", 9, 1)
    out = s.world.send(s.world.tcp("a", "vip", SYN))
    assert (s.ends(out.frame), intact(out.frame)) == (("a", 40000, "b", 8080), True)
    told = [int(event["type"]) for event in (*over.events, *out.events)]
    assert told == [EventType.CLOSE, EventType.NEW], "one ended, one began"
    assert s.world.entries() == 2
    entry, back = s.world.connection("a", "vip"), s.world.connection("b", "a", 8080, 40000)
    assert (entry["service"], entry["packets"], entry["tcp_sent"], entry["flags"]) == (
        9,
        1,
        SYN,
        ConnectionFlag.NAT,
    )
    assert (back["packets"], back["tcp_seen"], back["flags"]) == (
        0,
        SYN,
        ConnectionFlag.NAT | ConnectionFlag.REPLY,
    )
    answer = s.world.send(s.world.tcp("b", "a", SYN | ACK, sport=8080, dport=40000))
    assert (s.ends(answer.frame), intact(answer.frame)) == (("vip", 80, "a", 40000), True)
    ack = s.world.send(s.world.tcp("a", "vip", ACK))
    assert s.ends(ack.frame) == ("a", 40000, "b", 8080)


def test_entries_that_another_connection_has_by_now_are_not_taken_over(s: Services) -> None:
    s.world.send(s.world.tcp("a", "vip", SYN))
    s.world.send(s.world.tcp("a", "vip", RST))
    s.world.send(s.world.tcp("a", "b", SYN, dport=8080))  # its answers come as those of the other one came
    out = s.world.send(s.world.tcp("a", "vip", SYN))
    client, port, *server = s.ends(out.frame)
    assert (client, server) == ("a", ["b", 8080])
    assert port != 40000, "or else answers could not be told apart"
    direct = s.world.send(s.world.tcp("b", "a", SYN | ACK, sport=8080, dport=40000))
    assert s.ends(direct.frame) == ("b", 8080, "a", 40000)
    answer = s.world.send(s.world.tcp("b", "a", SYN | ACK, sport=8080, dport=port))
    assert s.ends(answer.frame) == ("vip", 80, "a", 40000)


def test_a_repeated_syn_is_the_same_connection(s: Services) -> None:
    first = s.world.send(s.world.tcp("a", "vip", SYN))
    s.backend(2, "c")
    s.service("vip", 7, 2)
    again = s.world.send(s.world.tcp("a", "vip", SYN))
    assert (s.ends(again.frame), len(again.events)) == (s.ends(first.frame), 0)


# Two ways to one place.


@pytest.mark.parametrize("direct", [False, True])
def test_two_ways_to_one_backend_from_one_port_do_not_mix(s: Services, direct: bool) -> None:
    s.service("vip2", 9, 1)
    other, port = ("b", 8080) if direct else ("vip2", 80)
    one = s.world.send(s.world.tcp("a", "vip", SYN))
    two = s.world.send(s.world.tcp("a", other, SYN, dport=port))
    assert s.ends(one.frame) == ("a", 40000, "b", 8080)
    source, sport, *there = s.ends(two.frame)
    assert (source, there, intact(two.frame)) == ("a", ["b", 8080], True)
    assert sport != 40000
    back = s.world.send(s.world.tcp("b", "a", SYN | ACK, sport=8080, dport=40000))
    assert s.ends(back.frame) == ("vip", 80, "a", 40000)
    back = s.world.send(s.world.tcp("b", "a", SYN | ACK, sport=8080, dport=sport))
    assert (s.ends(back.frame), intact(back.frame)) == ((other, port, "a", 40000), True)


@pytest.mark.parametrize("family", [4, 6])
def test_who_chose_the_same_port_on_another_cpu_keeps_his_answers(family: int) -> None:
    with make_bench(kind=LateBench) as bench:
        populate(bench)
        s = services_of(bench, family)
        s.backend(1, "b")
        s.service("vip", 7, 1)
        s.service("vip2", 9, 1)
        s.world.send(s.world.tcp("a", "vip", SYN))
        late = s.world.send(s.world.tcp("a", "vip2", SYN))
        assert dropped(late, "CT_MAP_INSERTION_FAILED")
        assert s.world.entries() == 2, "nothing is left of the late one"
        back = s.world.send(s.world.tcp("b", "a", SYN | ACK, sport=8080, dport=40000))
        assert s.ends(back.frame) == ("vip", 80, "a", 40000)
        s.world.send(s.world.tcp("a", "vip", RST))
        later = s.world.send(s.world.tcp("a", "vip2", SYN))
        assert s.ends(later.frame) == ("a", 40000, "b", 8080), "who is over has none"
        back = s.world.send(s.world.tcp("b", "a", SYN | ACK, sport=8080, dport=40000))
        assert s.ends(back.frame) == ("vip2", 80, "a", 40000)


# Who may, and who stays where.


def test_source_ranges(s: Services) -> None:
    s.service("vip", 7, 1, flags=ServiceFlag.SOURCE_RANGES)
    refused = s.world.send(s.world.tcp("a", "vip", SYN))
    assert (refused.action, only(refused.events)["reason"]) == (Action.SHOT, 177)
    length = 32 + (32 if s.world.family == 4 else 128)
    key = {"length": length, "service": 7, "address": {"a": words(s.world.addresses["a"])}}
    s.map("lb_sources").update(key, 1)
    assert s.world.send(s.world.tcp("a", "vip", SYN)).action is Action.REDIRECT
    assert s.world.send(s.world.tcp("c", "vip", SYN)).action is Action.SHOT


def test_who_is_excepted_reaches_the_address_itself(s: Services) -> None:
    s.service("vip", 7, 1, flags=ServiceFlag.SKIP_BACKENDS)
    s.bench.map("lb_skips").update({"endpoint": 3, "service": 7}, 1)
    assert s.world.send(s.world.tcp("a", "vip", SYN)).action is Action.REDIRECT
    excepted = s.world.send(s.world.tcp("c", "vip", SYN))
    assert (excepted.action, s.ends(excepted.frame)[2]) == (Action.PASS, "vip")


def test_a_client_keeps_its_backend_for_a_while(s: Services) -> None:
    s.backend(2, "c")
    s.service("vip", 7, *([1, 2] * 8), affinity=3600, algorithm=Algorithm.ROUND_ROBIN)
    first = s.ends(s.world.send(s.world.tcp("a", "vip", SYN)).frame)[2]
    others = {
        s.ends(s.world.send(s.world.tcp("a", "vip", SYN, sport=p)).frame)[2] for p in range(50000, 50008)
    }
    assert others == {first}
    keys, values = s.bench.map("lb_affinity").items()
    assert len(keys) == 1
    old = values[0].copy()
    old["used"] -= 3601 * 10**9 >> 24
    s.bench.map("lb_affinity").update(keys[0], old)
    after = [s.ends(s.world.send(s.world.tcp("a", "vip", SYN, sport=50100)).frame)[2]]
    s.bench.map("lb_members").delete({"service": 7, "backend": 1 if after[0] == "b" else 2})
    after.append(s.ends(s.world.send(s.world.tcp("a", "vip", SYN, sport=50101)).frame)[2])
    assert after[0] != first, "it was the other one's turn"
    assert after[1] != after[0], "a backend that is no member is not kept"


# How one is chosen.


@pytest.fixture
def three(s: Services) -> Services:
    s.backend(1, "b")
    s.backend(2, "c")
    s.backend(3, "remote")
    return s


def spread(s: Services, ports: range) -> Counter[str]:
    return Counter(s.ends(s.world.send(s.world.tcp("a", "vip", SYN, sport=port)).frame)[2] for port in ports)


def test_turns(three: Services) -> None:
    three.service("vip", 7, 1, 2, 3, algorithm=Algorithm.ROUND_ROBIN)
    assert spread(three, range(41000, 41030)) == {"b": 10, "c": 10, "remote": 10}


def test_by_chance_as_often_as_it_stands_there(three: Services) -> None:
    three.service("vip", 7, 1, 2, 2, 3, algorithm=Algorithm.RANDOM)
    seen = spread(three, range(41000, 41400))
    assert 140 < seen["c"] < 260
    assert seen["b"] > 50 < seen["remote"]


def test_by_hash_always_the_same(three: Services) -> None:
    three.service("vip", 7, 1, 2, 3, algorithm=Algorithm.MAGLEV)
    first = [
        three.ends(three.world.send(three.world.tcp("a", "vip", SYN, sport=p)).frame)[2] for p in range(300)
    ]
    three.world.table.clear()
    again = [
        three.ends(three.world.send(three.world.tcp("a", "vip", SYN, sport=p)).frame)[2] for p in range(300)
    ]
    assert first == again
    assert min(Counter(first).values()) > 60


def test_the_less_busy_one(three: Services) -> None:
    three.service("vip", 7, 1, 2, algorithm=Algorithm.LEAST_CONNECTIONS)
    three.bench.map("lb_loads").update(1, 1000)
    seen = spread(three, range(41000, 41100))
    assert seen["c"] > seen["b"] * 1.3, (
        "three of four; as many as that, with fewer than one failure in 10,000"
    )
    assert three.bench.map("lb_loads").lookup(1) + three.bench.map("lb_loads").lookup(2) == 1100


def test_entries_say_what_they_do(s: Services) -> None:
    s.world.send(s.world.tcp("a", "vip", SYN))
    there, back = s.world.connection("a", "vip"), s.world.connection("b", "a", 8080, 40000)
    assert (there["flags"], back["flags"]) == (ConnectionFlag.NAT, ConnectionFlag.NAT | ConnectionFlag.REPLY)
    assert (there["service"], there["backend"], back["service"], back["backend"]) == (7, 1, 7, 1)
    assert (there["nat_dport"], back["nat_sport"]) == (8080, 80)


def test_the_verifier_walks_it_as_one_program(bench: DatapathBench) -> None:
    """Beyond the budget it would be cut into several, and each packet would pay for that."""
    verified = bench.kernel.program_info(bench.program("from_workload").main.fd).verified
    assert verified <= DatapathSettings().max_verified_instructions
