"""TCP's state: closing is told exactly once, and ports are used again. The same for every strategy."""

from __future__ import annotations

import pytest
from packet_world import STRATEGIES, World, dropped, only

from axoneme.core.datapath.abi import ConnectionFlag, EventType
from axoneme.core.testing.datapath import Action
from axoneme.core.testing.packets import ACK, FIN, RST, SYN

pytestmark = pytest.mark.kernel


@pytest.fixture(params=STRATEGIES)
def strategy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_each_side_knows_what_the_other_sent(world: World) -> None:
    world.open("a", "b")
    world.send(world.tcp("a", "b", FIN | ACK))
    there, back = world.connection("a", "b"), world.connection("b", "a", 80, 40000)
    assert (there["tcp_sent"], there["tcp_seen"]) == (SYN | FIN, SYN)
    assert (back["tcp_sent"], back["tcp_seen"]) == (SYN, SYN | FIN)
    assert not there["flags"] & ConnectionFlag.CLOSED


def test_two_fins_close_once(world: World) -> None:
    world.open("a", "b")
    event = only(world.shut("a", "b"))
    assert event["type"] == EventType.CLOSE
    assert event["reply"] == 1, "the server's FIN was the last"
    assert (event["packets"], event["reply_packets"]) == (2, 3)
    assert event["bytes"] == world.connection("b", "a", 80, 40000)["bytes"]
    assert event["reply_bytes"] == world.connection("a", "b")["bytes"]
    assert event["tcp_flags"] == SYN | FIN
    for flags in (ACK, FIN | ACK, RST):
        assert not len(world.send(world.tcp("a", "b", flags)).events)
        assert not len(world.send(world.tcp("b", "a", flags, sport=80, dport=40000)).events)
    assert world.connection("a", "b")["flags"] == ConnectionFlag.CLOSED
    assert world.connection("b", "a", 80, 40000)["flags"] == ConnectionFlag.CLOSED | ConnectionFlag.REPLY


@pytest.mark.parametrize("by", ["client", "server"])
def test_one_reset_closes_once(world: World, by: str) -> None:
    world.open("a", "b")
    frames = {
        "client": world.tcp("a", "b", RST),
        "server": world.tcp("b", "a", RST | ACK, sport=80, dport=40000),
    }
    event = only(world.send(frames[by]).events)
    assert (event["type"], event["reply"]) == (EventType.CLOSE, by == "server")
    for frame in frames.values():
        assert not len(world.send(frame).events)


def test_a_fin_of_a_stale_connection_counts(world: World) -> None:
    """The rules change in the middle of the good-bye."""
    world.open("a", "b")
    world.bench.revision = 2
    assert not len(world.send(world.tcp("a", "b", FIN | ACK)).events)
    world.bench.revision = 3
    outcome = world.send(world.tcp("b", "a", FIN | ACK, sport=80, dport=40000))
    assert only(outcome.events)["type"] == EventType.CLOSE


@pytest.mark.parametrize("stale", [False, True])
def test_ports_are_used_again(world: World, stale: bool) -> None:
    world.open("a", "b")
    world.shut("a", "b")
    noted = world.connection("a", "b").copy()
    noted["slot"] = 7  # a plugin's, about the connection that is over
    world.table.update(world.key("a", "b"), noted)
    world.bench.revision += stale
    outcome = world.send(world.tcp("a", "b", SYN))
    event = only(outcome.events)
    assert (event["type"], event["reply"]) == (EventType.NEW, 0)
    assert (event["source_identity"], event["destination_identity"]) == (256, 257)
    there, back = world.connection("a", "b"), world.connection("b", "a", 80, 40000)
    assert (there["packets"], there["tcp_sent"], there["tcp_seen"]) == (1, SYN, 0)
    assert (back["packets"], back["tcp_sent"], back["tcp_seen"]) == (0, 0, SYN)
    assert (there["flags"], back["flags"]) == (0, ConnectionFlag.REPLY)
    assert not there["slot"].any()
    world.send(world.tcp("b", "a", SYN | ACK, sport=80, dport=40000))
    assert only(world.shut("a", "b"))["type"] == EventType.CLOSE


def test_a_half_closed_connection_whose_client_begins_anew_is_over(world: World) -> None:
    """Its end was never seen: the server went away. Its close is told before the next one's beginning."""
    world.open("a", "b")
    world.send(world.tcp("a", "b", FIN | ACK))
    close, new = world.send(world.tcp("a", "b", SYN)).events
    assert (close["type"], close["packets"], close["reply_packets"]) == (EventType.CLOSE, 3, 1)
    assert (new["type"], new["packets"]) == (EventType.NEW, 1)
    assert world.connection("a", "b")["tcp_sent"] == SYN


def test_a_repeated_syn_is_the_same_connection(world: World) -> None:
    world.send(world.tcp("a", "b", SYN))
    assert not len(world.send(world.tcp("a", "b", SYN)).events)
    assert world.connection("a", "b")["packets"] == 2


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("stale", [False, True])
def test_a_servers_syn_is_no_reply(world: World, closed: bool, stale: bool) -> None:
    """It would open a connection the other way round, so it has to be allowed like one."""
    world.open("a", "b")
    if closed:
        world.shut("a", "b")
    world.bench.revision += stale
    world.gate(reason=133)
    assert dropped(world.send(world.tcp("b", "a", SYN, sport=80, dport=40000)), "POLICY_DENIED")


def test_a_servers_allowed_syn_turns_the_connection_round(world: World) -> None:
    world.open("a", "b")
    close, new = world.send(world.tcp("b", "a", SYN, sport=80, dport=40000)).events
    assert (close["type"], new["type"]) == (EventType.CLOSE, EventType.NEW)
    assert (new["source_identity"], new["destination_identity"], new["sport"]) == (257, 256, 80)
    there, back = world.connection("b", "a", 80, 40000), world.connection("a", "b")
    assert (there["flags"], there["packets"], there["tcp_sent"]) == (0, 1, SYN)
    assert (back["flags"], back["packets"], back["tcp_seen"]) == (ConnectionFlag.REPLY, 0, SYN)
    assert world.entries() == 2


def test_a_forgers_syn_does_not_reopen(world: World) -> None:
    world.open("a", "b")
    world.shut("a", "b")
    before = world.snapshot()
    outcome = world.send(world.tcp("a", "b", SYN), sender="c")
    assert (outcome.action, outcome.reason) == (Action.SHOT, "INVALID_SOURCE_IP")
    assert world.snapshot() == before
