"""Bitmaps agree with matching label by label, whatever came and went."""

from __future__ import annotations

from typing import Any

from generators import IDENTITIES, PREFIXES, cidr_sets, selectors
from hypothesis import given
from hypothesis import strategies as st

from axoneme.plugins.policy.blocks import blocks, covering
from axoneme.plugins.policy.fields import Field
from axoneme.plugins.policy.model import Peer, Ports, Protocol
from axoneme.plugins.policy.numbers import Numbers
from axoneme.plugins.policy.peers import cidr, cidr_rule, selector
from axoneme.plugins.policy.selectors import Labels, Universe

peers: st.SearchStrategy[Peer] = st.one_of(
    selectors.map(lambda one: selector(Field(one))),
    st.sampled_from(PREFIXES).map(lambda one: cidr(Field(one))),
    cidr_sets.map(lambda one: cidr_rule(Field(one))),
)


@given(
    st.lists(peers, max_size=4),
    st.lists(st.tuples(st.sampled_from(IDENTITIES), st.booleans()), max_size=30),
    st.lists(peers, max_size=2),
)
def test_bitmaps_are_what_matching_says(before: list[Peer], changes: list[Any], after: list[Peer]) -> None:
    universe = Universe()
    for peer in before:
        universe.use(peer)
    for identity, there in changes:
        if there:
            universe.add(identity)
        else:
            universe.remove(identity.number)
    for peer in (*before, *after):
        bits = universe.bits(peer)
        found = {universe.number_at(at) for at in range(universe.width) if bits >> at & 1}
        known = {number: universe.labels(number) for number in universe.numbers()}
        assert found == {
            number for number, labels in known.items() if labels is not None and labels.matches(peer)
        }
    for number in universe.numbers():
        assert universe.selectors_of(number) == {
            peer.text
            for peer in before
            if universe.bits(peer) and Labels(_texts(universe, number)).matches(peer)
        }


def _texts(universe: Universe, number: int) -> tuple[str, ...]:
    labels = universe.labels(number)
    assert labels is not None
    return labels.texts


@given(st.integers(0, 65535), st.integers(0, 65535))
def test_blocks_make_up_their_range_exactly(one: int, other: int) -> None:
    first, last = sorted((one, other))
    if last == 0:
        return
    found = blocks(Ports(Protocol.TCP, first, last))
    ends = [(port, port + (1 << (16 - bits)) - 1) for _, bits, port in found]
    assert ends[0][0] == first
    assert ends[-1][1] == last
    assert all(ends[at][1] + 1 == ends[at + 1][0] for at in range(len(ends) - 1))
    assert all(port % (1 << (16 - bits)) == 0 for _, bits, port in found)


def test_a_block_is_covered_from_everything_down_to_itself() -> None:
    path = list(covering((6, 16, 80)))
    assert path[:2] == [(0, 0, 0), (6, 0, 0)]
    assert path[-1] == (6, 16, 80)
    assert len(path) == 18


def test_a_number_keeps_its_meaning_until_it_is_settled() -> None:
    numbers = Numbers(bits=1)
    assert numbers.take(b"a") == 1
    numbers.release(b"a")
    try:
        numbers.take(b"b")
    except RuntimeError:
        numbers.settle()
    assert numbers.take(b"b") == 1
