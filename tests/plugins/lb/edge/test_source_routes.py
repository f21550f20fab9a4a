"""Source-routed packets: their destination is but the next stop, so nothing is decided, or exchanged, by it."""

from __future__ import annotations

import pytest
from edge_world import Edge, Xdp
from packet_world import dropped

from axoneme.core.testing.datapath import Action
from axoneme.core.testing.packets import ROUTING, SYN, TCP, Extension

pytestmark = pytest.mark.kernel

LSRR, SSRR, NOP, RECORD = 131, 137, 1, 7


def option(kind: int) -> bytes:
    return bytes((kind, 7, 4, 10, 0, 0, 9))


def made(edge: Edge, source: str, destination: str) -> list[bytes]:
    """By both kinds of option, also behind others; by a routing header with a segment left."""
    syn = TCP(40000, 80, flags=SYN)
    if edge.family == 6:
        frames = [
            edge.frame(source, destination, Extension(ROUTING, bytes((kind, 1, *bytes(20)))), syn)
            for kind in (0, 2, 4)
        ]
        return [
            *frames,
            edge.frame(source, destination, Extension(0), Extension(ROUTING, bytes((0, 1, *bytes(20)))), syn),
        ]
    many = (option(LSRR), option(SSRR), bytes([NOP] * 33) + option(LSRR), option(RECORD) + option(SSRR))
    return [edge.frame(source, destination, syn, options=each + bytes(-len(each) % 4)) for each in many]


def test_of_a_workload_are_refused(edge: Edge) -> None:
    for destination in ("b", edge.vip, "world"):
        for frame in made(edge, "a", destination):
            assert dropped(edge.send(frame), "SOURCE_ROUTED")
    assert not edge.entries()


def test_from_outside_are_the_stacks(edge: Edge) -> None:
    edge.backend(1, "b", 8080)
    edge.service(1)
    assert edge.arrive(edge.tcp("world", edge.vip, SYN)).action is Action.REDIRECT
    for frame in made(edge, "world", edge.vip):
        assert edge.enter(frame).verdict is Xdp.PASS
        outcome = edge.arrive(frame)
        assert (outcome.action, outcome.frame) == (Action.PASS, frame)


def test_other_options_and_routes_at_their_end_are_not(edge: Edge) -> None:
    syn = TCP(40000, 80, flags=SYN)
    if edge.family == 6:
        frames = [edge.frame("a", "b", Extension(ROUTING, bytes((0, 0, *bytes(20)))), syn)]
    else:
        # A byte that looks like a source route, but is within another option, or behind the end of the list.
        frames = [
            edge.frame("a", "b", syn, options=each)
            for each in (
                bytes([NOP] * 40),
                bytes((RECORD, 7, 4, LSRR, SSRR, 0, 9, 0)),
                bytes((0, LSRR, 3, 4)),
            )
        ]
    for frame in frames:
        assert edge.send(frame).action is Action.REDIRECT


def test_options_that_lead_nowhere_are_broken(edge: Edge) -> None:
    if edge.family == 4:
        frame = edge.frame("a", "b", TCP(40000, 80, flags=SYN), options=bytes((RECORD, 0, 0, 0)))
        assert dropped(edge.send(frame), "INVALID_PACKET_DROPPED")
