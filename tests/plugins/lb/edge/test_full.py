"""Services from outside when something is full: new flows fail by reason, at XDP and behind it; established ones go on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from edge_world import Edge, FrameOutcome, Xdp
from packet_world import dropped

from axoneme.core.datapath.abi import ConnectionFlag
from axoneme.core.testing.datapath import Action
from axoneme.core.testing.packets import ACK, SYN, intact, parse

pytestmark = pytest.mark.kernel

FIRST, LAST = 1024, 29999
PROTOCOLS = pytest.mark.parametrize("protocol", ["tcp", "udp"])
NO_PORT, NO_ROOM = "NO_MAPPING_FOR_NAT_MASQUERADE", "CT_MAP_INSERTION_FAILED"


@pytest.fixture
def served(edge: Edge) -> Edge:
    """Services by TCP and UDP with one backend, which is elsewhere."""
    edge.backend(1, "remote", 8080)
    edge.service(1)
    edge.service(1, port=53, protocol=17)
    return edge


def asked(edge: Edge, protocol: str, sport: int, flags: int = SYN) -> bytes:
    if protocol == "tcp":
        return edge.tcp("world", edge.vip, flags, sport=sport)
    return edge.udp("world", edge.vip, sport=sport)


def answered(edge: Edge, protocol: str, port: int) -> bytes:
    make = edge.tcp if protocol == "tcp" else edge.udp
    return make("remote", edge.node, sport=8080, dport=port)


def ports(outcome: FrameOutcome) -> tuple[int, int]:
    assert outcome.verdict is Xdp.TX
    assert intact(outcome.frame)
    layer = parse(outcome.frame).layers[2]
    return layer.sport, layer.dport  # type: ignore[attr-defined]


def take_all_ports(edge: Edge) -> None:
    """Other clients have every port towards the backend, but for the one that is taken already."""
    keys, values = edge.table.items()
    (at,) = np.flatnonzero(values["flags"] & ConnectionFlag.REPLY)
    every = np.setdiff1d(np.arange(FIRST, LAST + 1), keys["dport"][at])
    others, entries = np.repeat(keys[at : at + 1], len(every)), np.repeat(values[at : at + 1], len(every))
    others["dport"] = every
    entries["nat_dport"] = 9
    edge.table.update_batch(others, entries)


def goes_on(edge: Edge, protocol: str, port: int) -> None:
    """The connection of port 3000, both ways, by XDP and by the classifier alone."""
    assert ports(edge.enter(asked(edge, protocol, 3000, ACK))) == (port, 8080)
    assert ports(edge.enter(answered(edge, protocol, port)))[1] == 3000
    for frame in (asked(edge, protocol, 3000, ACK), answered(edge, protocol, port)):
        outcome = edge.arrive(frame)
        assert outcome.action is Action.REDIRECT
        assert intact(outcome.frame)


def refuse_connections(edge: Edge) -> None:
    edge.grant(0)


@PROTOCOLS
@pytest.mark.parametrize(
    ("fill", "reason"),
    [(take_all_ports, NO_PORT), (refuse_connections, NO_ROOM)],
    ids=["ports", "connections"],
)
def test_new_ones_fail_by_reason_and_established_ones_go_on(
    served: Edge, protocol: str, fill: Callable[[Edge], None], reason: str
) -> None:
    edge = served
    port = ports(edge.enter(asked(edge, protocol, 3000)))[0]
    goes_on(edge, protocol, port)
    fill(edge)
    before, entries = edge.counted(reason, 0), edge.entries()
    for sport in range(4000, 4010):
        frame = asked(edge, protocol, sport)
        early = edge.enter(frame)
        assert early.verdict is Xdp.PASS, "the classifier finds out as well, and says so"
        assert early.frame.endswith(frame), "as it came"
        assert dropped(edge.arrive(frame), reason)
    assert edge.counted(reason, 0) == before + 10
    assert edge.entries() == entries, "nothing stays of those that failed"
    goes_on(edge, protocol, port)


@PROTOCOLS
def test_a_port_that_is_given_back_serves_the_next_one(served: Edge, protocol: str) -> None:
    """By XDP, which takes over the entry of a connection that is closed."""
    edge = served
    ports(edge.enter(asked(edge, protocol, 3000)))
    take_all_ports(edge)
    keys, values = edge.table.items()
    (at,) = np.flatnonzero(keys["dport"] == 4000)
    edge.table.delete(keys[at])
    assert ports(edge.enter(asked(edge, protocol, 4000))) == (4000, 8080), "free again"
    closed = values[at].copy()
    closed["flags"] |= ConnectionFlag.CLOSED
    edge.table.update(keys[keys["dport"] == 5000][0], closed)
    assert ports(edge.enter(asked(edge, protocol, 5000))) == (5000, 8080), "that one was closed"
    assert ports(edge.enter(answered(edge, protocol, 5000)))[1] == 5000
