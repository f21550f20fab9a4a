"""The connection table: entries, replies, revisions, forgeries and what the table forgot. The same for every strategy."""

from __future__ import annotations

import numpy as np
import pytest
from packet_world import (
    IDENTITIES,
    STRATEGIES,
    UDP_PROTOCOL,
    World,
    dropped,
    forwarded,
    only,
    wide,
)

from axoneme.core.datapath.abi import ConnectionFlag, EventType, NextHop
from axoneme.core.datapath.conntrack import ticks
from axoneme.core.testing.datapath import Action
from axoneme.core.testing.packets import ACK, FIN, RST, SYN

pytestmark = pytest.mark.kernel


@pytest.fixture(params=STRATEGIES)
def strategy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_first_packet_makes_both_entries_and_an_event(world: World) -> None:
    before = ticks()
    world.gate(egress_rule=7, ingress_rule=8)
    frame = world.tcp("a", "b", SYN)
    outcome = world.send(frame)
    assert forwarded(frame, outcome, source=1, destination=2)

    there, back = world.connection("a", "b"), world.connection("b", "a", 80, 40000)
    assert world.entries() == 2
    for entry in (there, back):
        assert entry["revision"] == 1
        assert entry["next_hop"] == NextHop.LOCAL
        assert (
            before - 1 <= entry["created"] <= ticks()
        )  # the programs' clock is the coarse one, a jiffy behind
        assert (entry["egress_rule"], entry["ingress_rule"]) == (7, 8)
    assert (there["source_identity"], there["destination_identity"]) == (256, 257)
    assert (back["source_identity"], back["destination_identity"]) == (257, 256)
    assert (there["source_endpoint"], there["destination_endpoint"]) == (1, 2)
    assert (back["source_endpoint"], back["destination_endpoint"]) == (2, 1)
    assert there["source_ifindex"] == back["ifindex"] == world.bench.link("a")
    assert back["source_ifindex"] == there["ifindex"] == world.bench.link("b")
    assert bytes(there["dmac"]) == bytes.fromhex("020000000002")
    assert bytes(back["smac"]) == bytes.fromhex("060000000001")
    assert (there["flags"], back["flags"]) == (0, ConnectionFlag.REPLY)
    assert (there["packets"], there["bytes"], back["packets"]) == (1, len(frame), 0)

    event = only(outcome.events)
    assert event["type"] == EventType.NEW
    assert (event["family"], event["protocol"], event["tcp_flags"]) == (world.family, 6, SYN)
    assert event["saddr"].tolist() == wide(world.addresses["a"])
    assert event["daddr"].tolist() == wide(world.addresses["b"])
    assert (event["sport"], event["dport"]) == (40000, 80)
    assert (event["source_identity"], event["destination_identity"]) == (256, 257)
    assert (event["source_endpoint"], event["destination_endpoint"]) == (1, 2)
    assert (event["egress_rule"], event["ingress_rule"]) == (7, 8)
    assert (event["ifindex"], event["reply"]) == (world.bench.link("a"), 0)
    assert (event["packets"], event["bytes"]) == (1, len(frame))


def test_later_packets_are_known_and_ask_nobody(world: World) -> None:
    world.open("a", "b")
    asked = world.asked()
    frame = world.tcp("a", "b")
    for _ in range(3):
        outcome = world.send(frame)
        assert forwarded(frame, outcome, source=1, destination=2)
        assert not len(outcome.events)
    reply = world.tcp("b", "a", sport=80, dport=40000)
    assert forwarded(reply, world.send(reply), source=2, destination=1)
    assert world.asked() == asked == 1
    assert world.connection("a", "b")["packets"] == 5
    assert world.connection("b", "a", 80, 40000)["packets"] == 2


def test_packets_and_entries_are_counted(world: World) -> None:
    forwards, entered = world.counted("FORWARDED"), world.entered()
    world.open("a", "b")
    assert world.counted("FORWARDED") - forwards == 3
    assert world.entered() - entered == 2


def test_a_reply_may_come_first_after_the_rules_changed(world: World) -> None:
    world.open("a", "b")
    world.bench.revision = 2
    outcome = world.send(world.tcp("b", "a", sport=80, dport=40000))
    assert outcome.action is Action.REDIRECT
    assert not len(outcome.events)
    there, back = world.connection("a", "b"), world.connection("b", "a", 80, 40000)
    assert (there["revision"], back["revision"]) == (2, 2)
    assert (there["flags"], back["flags"]) == (0, ConnectionFlag.REPLY)
    assert (there["packets"], back["packets"]) == (2, 2)


def test_a_stale_entry_is_decided_again_in_place(world: World) -> None:
    world.gate(egress_rule=1)
    world.open("a", "b")
    created = world.connection("a", "b")["created"]
    world.bench.revision = 2
    world.gate(egress_rule=5, mark=0)
    outcome = world.send(world.tcp("a", "b"))
    assert outcome.action is Action.REDIRECT
    assert not len(outcome.events)
    assert world.asked() == 1
    there, back = world.connection("a", "b"), world.connection("b", "a", 80, 40000)
    assert (there["revision"], back["revision"]) == (2, 2)
    assert (there["egress_rule"], back["egress_rule"]) == (5, 5)
    assert (there["packets"], back["packets"]) == (3, 1)
    assert there["created"] == created
    assert there["tcp_sent"] == SYN
    world.send(world.tcp("a", "b"))
    assert world.asked() == 1


def test_a_flow_that_is_no_longer_allowed_ends(world: World) -> None:
    world.open("a", "b")
    forgotten = world.counted("FORGOTTEN")
    world.bench.revision = 2
    world.gate(reason=133, egress_rule=9)
    outcome = world.send(world.tcp("a", "b"))
    assert dropped(outcome, "POLICY_DENIED")
    assert only(outcome.events)["egress_rule"] == 9
    assert world.entries() == 0
    assert world.counted("FORGOTTEN") - forgotten == 2


@pytest.mark.parametrize("flags", [SYN, ACK, FIN | ACK, RST])
@pytest.mark.parametrize("stale", [False, True])
def test_a_forged_packet_changes_nobody_elses_connection(world: World, flags: int, stale: bool) -> None:
    world.open("a", "b")
    world.bench.revision += stale
    before = world.snapshot()
    outcome = world.send(world.tcp("a", "b", flags), sender="c")
    assert dropped(outcome, "INVALID_SOURCE_IP")
    assert only(outcome.events)["ifindex"] == world.bench.link("c")
    assert world.snapshot() == before


@pytest.mark.parametrize("source", ["host", "world", "unused", "gateway"])
def test_a_workload_speaks_for_itself_only(world: World, source: str) -> None:
    dropped_before = world.counted("INVALID_SOURCE_IP")
    assert dropped(world.send(world.tcp(source, "b", SYN), sender="a"), "INVALID_SOURCE_IP")
    assert world.entries() == 0
    assert world.counted("INVALID_SOURCE_IP") == dropped_before + 1


@pytest.mark.parametrize("known", [False, True])
def test_nobody_outside_speaks_for_a_workload(world: World, known: bool) -> None:
    """Its address in a packet from the network, or from another workload through the host's stack."""
    if known:
        world.open("a", "b")
    before = world.snapshot()
    assert dropped(world.arrive(world.tcp("a", "b", RST)), "INVALID_SOURCE_IP")
    forged = world.deliver(world.tcp("a", "b", RST), ingress_ifindex=world.bench.link("uplink"))
    assert dropped(forged, "INVALID_SOURCE_IP")
    assert world.snapshot() == before


def test_a_workloads_packet_may_come_through_the_stack(world: World) -> None:
    outcome = world.deliver(world.tcp("a", "b", SYN), ingress_ifindex=world.bench.link("a"))
    assert outcome.action is Action.REDIRECT
    assert world.connection("a", "b")["source_identity"] == IDENTITIES["a"]


def test_the_forgotten_way_there_is_made_again(world: World) -> None:
    world.open("a", "b")
    created = world.connection("a", "b")["created"]
    world.forget("a", "b")
    outcome = world.send(world.tcp("a", "b"))
    assert outcome.action is Action.REDIRECT
    assert not len(outcome.events)
    there, back = world.connection("a", "b"), world.connection("b", "a", 80, 40000)
    assert (there["flags"], there["packets"], there["created"]) == (0, 1, created)
    assert there["tcp_seen"] == SYN
    assert (back["flags"], back["packets"]) == (ConnectionFlag.REPLY, 1)


def test_the_forgotten_way_back_is_made_again(world: World) -> None:
    world.open("a", "b")
    world.forget("b", "a", 80, 40000)
    outcome = world.send(world.tcp("b", "a", sport=80, dport=40000))
    assert outcome.action is Action.REDIRECT
    assert not len(outcome.events)
    there, back = world.connection("a", "b"), world.connection("b", "a", 80, 40000)
    assert (there["flags"], there["packets"]) == (0, 2)
    assert (back["flags"], back["packets"]) == (ConnectionFlag.REPLY, 1)
    assert back["source_identity"] == IDENTITIES["b"]


def test_the_last_packet_of_a_forgotten_direction_still_closes(world: World) -> None:
    world.open("a", "b")
    world.send(world.tcp("b", "a", FIN | ACK, sport=80, dport=40000))
    world.forget("a", "b")
    outcome = world.send(world.tcp("a", "b", FIN | ACK))
    assert only(outcome.events)["type"] == EventType.CLOSE


def test_datagrams_are_connections_of_their_ports(world: World) -> None:
    frame = world.udp("a", "b")
    first = world.send(frame)
    assert forwarded(frame, first, source=1, destination=2)
    assert only(first.events)["type"] == EventType.NEW
    answer = world.send(world.udp("b", "a", sport=53, dport=40000))
    assert answer.action is Action.REDIRECT
    assert not len(answer.events)
    assert world.connection("b", "a", 53, 40000, UDP_PROTOCOL)["flags"] == ConnectionFlag.REPLY
    assert world.connection("b", "a", 53, 40000, UDP_PROTOCOL)["tcp_sent"] == 0
    assert world.entries() == 2


def test_protocols_do_not_share_ports(world: World) -> None:
    world.send(world.tcp("a", "b", SYN, dport=53))
    assert only(world.send(world.udp("a", "b")).events)["type"] == EventType.NEW
    assert world.entries() == 4


def test_a_moved_workload_is_found_again(world: World) -> None:
    """Its interface was made anew: entries of the old one are no proof of who sends."""
    world.open("a", "b")
    entry = world.connection("a", "b")
    stranger = entry.copy()
    stranger["source_ifindex"] = 4242
    world.table.update(world.key("a", "b"), stranger)
    assert world.send(world.tcp("a", "b")).action is Action.REDIRECT
    assert world.connection("a", "b")["source_ifindex"] == world.bench.link("a")


def test_a_full_table_lets_the_oldest_go(world: World) -> None:
    """The newest connections are all there, whatever was before them."""
    size = world.table.spec.max_entries
    for port in range(size):
        assert (
            world.send(world.tcp("a", "b", SYN, sport=1 + port % 60000, dport=90)).action is Action.REDIRECT
        )
    keys, _ = world.table.items()
    assert len(keys) <= size
    newest = np.isin(np.arange(size - 63, size + 1), np.concatenate([keys["sport"], keys["dport"]]))
    assert newest.all()
