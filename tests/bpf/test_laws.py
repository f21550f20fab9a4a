"""Laws of the packet path, for packets of any shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packet_world import World, forwarded, make_bench, populate

from axoneme.core.datapath.kernel import BpfError
from axoneme.core.testing.datapath import Action, DatapathBench
from axoneme.core.testing.packets import (
    DESTINATION,
    HOP_BY_HOP,
    ROUTING,
    SCTP,
    TCP,
    UDP,
    Extension,
    Layer,
    intact,
)

pytestmark = pytest.mark.kernel

many = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])

ports = st.integers(0, 65535)
transports: st.SearchStrategy[Layer] = st.one_of(
    st.builds(TCP, ports, ports, flags=st.integers(0, 255), options=st.sampled_from([b"", b"\x01" * 12])),
    st.builds(UDP, ports, ports),
    st.builds(SCTP, ports, ports),
)


def _extension(kind: int, data: bytes) -> Extension:
    """A routing header has no segments left: others are refused (RFC 8200 4.4)."""
    return Extension(kind, data[:1] + b"\0" + data[2:] if kind == ROUTING else data)


headers = st.lists(
    st.builds(
        _extension, st.sampled_from([HOP_BY_HOP, ROUTING, DESTINATION]), st.binary(min_size=6, max_size=30)
    ),
    max_size=6,
)
payloads = st.binary(max_size=200)


@pytest.fixture(scope="module")
def bench() -> Iterator[DatapathBench]:
    with make_bench("single") as bench:
        populate(bench)
        yield bench


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def world(request: pytest.FixtureRequest, bench: DatapathBench) -> World:
    return World(bench, request.param).reset()


@st.composite
def frames(draw: st.DrawFn) -> Callable[[World], bytes]:
    """A valid packet from a to b, of either family."""
    transport, payload, ttl = draw(transports), draw(payloads), draw(st.integers(2, 255))
    chain, options = draw(headers), draw(st.integers(0, 10))

    def make(world: World) -> bytes:
        if world.family == 4:
            return world.frame("a", "b", transport, payload, ttl=ttl, options=b"\x01" * 4 * options)
        return world.frame("a", "b", *chain, transport, payload, ttl=ttl)

    return make


@many
@given(make=frames())
def test_a_delivered_packet_differs_by_its_hop_alone(world: World, make: Callable[[World], bytes]) -> None:
    frame = make(world)
    assert intact(frame)
    for _ in range(2):  # the first packet, and one of a known connection
        assert forwarded(frame, world.send(frame), source=1, destination=2)


@many
@given(make=frames())
def test_entries_are_each_others_reverse(world: World, make: Callable[[World], bytes]) -> None:
    world.table.clear()
    world.send(make(world))
    keys, values = world.table.items()
    assert len(keys) == 2
    one, other = keys
    assert one["saddr"] == other["daddr"]
    assert one["daddr"] == other["saddr"]
    assert (one["sport"], one["dport"]) == (other["dport"], other["sport"])
    assert (one["protocol"], bytes(one["pad"])) == (other["protocol"], bytes(3))
    assert sorted(values["flags"] & 1) == [0, 1]
    assert sorted(values["packets"]) == [0, 1]


@many
@given(
    make=frames(),
    flips=st.lists(st.tuples(st.integers(14, 400), st.integers(0, 255)), max_size=6),
    cut=st.integers(0, 60),
)
def test_no_packet_is_too_strange(
    world: World, make: Callable[[World], bytes], flips: list[tuple[int, int]], cut: int
) -> None:
    """Whatever the bytes: a verdict, a reason if it is a drop, and no bytes changed unless it is handed on."""
    frame = bytearray(make(world))
    for at, value in flips:
        if at < len(frame):
            frame[at] = value
    sent = bytes(frame[: max(15, len(frame) - cut)])
    try:
        outcome = world.send(sent, sender="a")
    except BpfError:
        return  # too short for the kernel itself
    assert outcome.action in (Action.REDIRECT, Action.PASS, Action.SHOT)
    if outcome.action is Action.REDIRECT:
        assert len(outcome.frame) == len(sent)
    else:
        assert outcome.frame == sent
    if outcome.action is Action.SHOT and len(outcome.events):
        assert not (outcome.reason or "").isdigit(), "every reason has a name"


@many
@given(make=frames(), spoofed=st.sampled_from(["b", "c"]))
def test_nothing_passes_under_anothers_address(
    world: World, make: Callable[[World], bytes], spoofed: str
) -> None:
    before = world.snapshot()
    frame = make(world)
    assert world.send(frame, sender=spoofed).action is Action.SHOT
    assert world.snapshot() == before
