"""The connection table is full: new connections are refused with a reason, and what lives goes on."""

from __future__ import annotations

import pytest
from packet_world import STRATEGIES, UDP_PROTOCOL, World, dropped

from axoneme.core.datapath.abi import CONNECTIONS_RESERVE
from axoneme.core.testing.datapath import Action
from axoneme.core.testing.packets import ACK, FIN, RST, SYN

pytestmark = pytest.mark.kernel

FULL = "CT_MAP_INSERTION_FAILED"


@pytest.fixture(params=STRATEGIES)
def strategy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_new_connections_are_refused_and_known_ones_go_on(world: World) -> None:
    world.grant(2)
    world.open("a", "b")
    before, refused, counted = world.snapshot(), world.refused(), world.counted(FULL)
    new = [
        world.tcp("a", "b", SYN, sport=1),
        world.tcp("a", "b", ACK, sport=2),
        world.udp("a", "b"),
        world.echo("a", "b"),
        world.tcp("b", "c", SYN),
        world.tcp("a", "world", SYN),
    ]
    for frame in new:
        assert dropped(world.send(frame), FULL)
    assert dropped(world.deliver(world.tcp("host", "a", SYN)), FULL)
    assert dropped(world.arrive(world.tcp("world", "a", SYN)), FULL)
    assert world.snapshot() == before
    assert world.refused() - refused == len(new) + 2
    assert world.counted(FULL) - counted == len(new), "those out of workloads"
    for there, back in (("a", "b"), ("b", "a")):
        ports = {} if there == "a" else {"sport": 80, "dport": 40000}
        assert world.send(world.tcp(there, back, **ports)).action is Action.REDIRECT
    assert world.connection("a", "b")["packets"] == 3


def test_what_was_decided_anew_since_goes_on(world: World) -> None:
    world.open("a", "b")
    world.grant(0)
    world.bench.revision = 2
    assert world.send(world.tcp("b", "a", sport=80, dport=40000)).action is Action.REDIRECT
    assert world.connection("a", "b")["revision"] == 2


@pytest.mark.parametrize("gone", ["question", "answer"])
def test_a_connection_with_one_entry_left_gets_its_other_one_back(world: World, gone: str) -> None:
    world.open("a", "b")
    world.grant(0)
    question, answer = ("a", "b"), ("b", "a", 80, 40000)
    world.forget(*(question if gone == "question" else answer))
    entered = world.entered()
    frames = {"question": world.tcp("a", "b"), "answer": world.tcp("b", "a", sport=80, dport=40000)}
    assert world.send(frames[gone]).action is Action.REDIRECT
    assert world.entries() == 2
    assert world.entered() - entered == 1


def test_the_next_connection_of_the_same_ports_needs_no_room(world: World) -> None:
    world.open("a", "b")
    world.shut("a", "b")
    world.grant(0)
    assert world.send(world.tcp("a", "b", SYN)).action is Action.REDIRECT
    assert world.send(world.tcp("a", "b", RST)).action is Action.REDIRECT
    assert world.send(world.tcp("b", "a", SYN, sport=80, dport=40000)).action is Action.REDIRECT, (
        "turned round"
    )
    assert world.entries() == 2


def test_room_counts_entries_and_is_given_anew(world: World) -> None:
    world.grant(4)
    sent = [world.send(world.udp("a", "b", sport=1000 + n)).action for n in range(4)]
    assert sent == [Action.REDIRECT, Action.REDIRECT, Action.SHOT, Action.SHOT]
    world.grant(2)
    assert world.send(world.udp("a", "b", sport=1002)).action is Action.REDIRECT
    assert world.send(world.udp("a", "b", sport=1003)).action is Action.SHOT
    assert world.connection("a", "b", 1000, 53, UDP_PROTOCOL) is not None


@pytest.mark.parametrize("seconds", [None, -1.0])
def test_without_a_grant_that_holds_nothing_is_refused(world: World, seconds: float | None) -> None:
    world.grant(None if seconds is None else 0, seconds=seconds or 0.0)
    for n in range(4):
        assert world.send(world.tcp("a", "b", SYN, sport=n + 1)).action is Action.REDIRECT
    assert world.entries() == 8


def test_policy_has_the_first_word(world: World) -> None:
    world.grant(0)
    world.gate(reason=133)
    assert dropped(world.send(world.tcp("a", "b", FIN)), "POLICY_DENIED")


def test_nothing_gives_way_before_the_limit(world: World) -> None:
    """The kernel keeps free entries for each CPU: the reserve is more than that."""
    limit = world.table.spec.max_entries - CONNECTIONS_RESERVE * world.bench.kernel.possible_cpus
    world.open("a", "b")
    keys, values = world.table.items()
    world.grant(limit - 2)
    one = world.udp("a", "b")
    refused = 0
    for n in range(limit // 2 + 8):
        frame = world.udp("a", "b", sport=1024 + n) if n else one
        refused += world.send(frame).action is Action.SHOT
    assert world.entries() == limit
    assert refused == 9
    assert {bytes(key) for key in keys} <= {bytes(key) for key in world.table.items()[0]}
    assert len(values) == 2


def test_when_a_grant_has_ended_the_oldest_give_way(world: World) -> None:
    """As without any agent: nobody makes room, so new connections take it, and one that is used stays."""
    world.grant(0, seconds=-1)
    world.open("a", "b")
    room = world.table.spec.max_entries
    for n in range(room):
        assert world.send(world.udp("a", "c", sport=1024 + n)).action is Action.REDIRECT
        if not n % 64:
            assert world.send(world.tcp("a", "b")).action is Action.REDIRECT
            assert world.send(world.tcp("b", "a", sport=80, dport=40000)).action is Action.REDIRECT
    assert room - CONNECTIONS_RESERVE * world.bench.kernel.possible_cpus <= world.entries() <= room
    assert world.connection("a", "b")["packets"] > room // 64
