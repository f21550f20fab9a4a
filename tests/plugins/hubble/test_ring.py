"""The ring: numbers, order, overwriting, messages, names."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from axoneme.plugins.hubble.columns import Has, empty
from axoneme.plugins.hubble.names import Interned, Node
from axoneme.plugins.hubble.ring import Ring, rising


def columns(times: list[int]) -> dict[str, Any]:
    made = empty(len(times))
    made["time"][:] = times
    made["source_port"][:] = times
    return made


@given(st.lists(st.integers(0, 20), max_size=12), st.integers(1, 7))
def test_what_a_ring_holds(batches: list[int], capacity: int) -> None:
    """Against a list: the newest flows with their numbers, forwards, backwards, and by time."""
    ring, model = Ring(capacity), []
    for count in batches:
        times = [2 * (len(model) + place) for place in range(count)]
        model += times
        ring.append(columns(times))
        assert (ring.head, len(ring)) == (len(model), min(len(model), capacity))
    kept = dict(list(enumerate(model))[-capacity:])
    for size in (1, 3, 100):
        seen = [
            (view.start + place, int(moment))
            for view in ring.views(0, ring.head, size)
            for place, moment in enumerate(view["time"])
        ]
        assert seen == list(kept.items())
        back, end = [], ring.head
        while end > ring.tail:
            view = ring.before(end, size)
            assert 0 < len(view) <= size
            back += [view.start + place for place in range(len(view))[::-1]]
            end = view.start
        assert back == list(kept)[::-1]
    for time in range(len(model) * 2 + 2):
        later = [number for number, moment in kept.items() if moment >= time]
        assert ring.since(time) == (later[0] if later else ring.head)
    assert ring.last_time == (model[-1] if model else 0)


@given(st.lists(st.integers(0, 50)), st.integers(0, 50))
def test_times_rise(times: list[int], after: int) -> None:
    result = rising(np.array(times, np.uint64), after).tolist()
    assert all(one < other for one, other in zip([after, *result], result, strict=False))
    for given_, made in zip(times, result, strict=True):
        assert made >= given_
    already = all(one < other for one, other in zip([after, *times], times, strict=False))
    assert not already or result == times


def test_messages_go_with_their_flows() -> None:
    ring = Ring(4)
    for number in range(10):
        made = columns([number])
        made["has"][:] = Has.MESSAGE if number % 2 else 0
        ring.append(made, {0: b"%d" % number} if number % 2 else {})
    found = [
        (view.start + place, view.messages[view.start + place])
        for view in ring.views(0, ring.head)
        for place in np.flatnonzero(view["has"]).tolist()
    ]
    assert found == [(7, b"7"), (9, b"9")]


def test_names_that_nobody_uses_are_forgotten(monkeypatch: Any) -> None:
    monkeypatch.setattr("axoneme.plugins.hubble.ring._GROWTH", 10)
    ring = Ring(4)
    for number in range(1000):
        made = columns([number])
        made["node"][:] = ring.names.nodes.number(Node(f"n{number}"))
        ring.append(made)
        assert len(ring.names.nodes) < 60
    view = ring.view(ring.tail, ring.head)
    found = [ring.names.nodes[number] for number in view["node"].tolist()]
    assert [node.name for node in found if node] == ["n996", "n997", "n998", "n999"] or len(view) < 4
    assert ring.names.generation > 10


def test_interned_values_are_there_once() -> None:
    interned: Interned[str] = Interned(str)
    assert [interned.number(text) for text in "abcab"] == [1, 2, 3, 1, 2]
    interned.keep(np.array([False, False, True]))
    assert (interned[1], interned[2], interned[3], interned.used) == (None, "b", None, 1)
    assert {interned.number("c"), interned.number("d")} == {1, 3}
    assert interned.number("b") == 2


def test_losses_are_told_once() -> None:
    ring = Ring(4)
    ring.append(columns([1]))
    ring.lose(1, 5, 0)
    ring.append(columns([2]))
    ring.lose(2, 7, 0)
    assert [(loss.serial, loss.position, loss.count) for loss in ring.losses_after(0, 2)] == [
        (1, 1, 5),
        (2, 2, 7),
    ]
    assert [loss.serial for loss in ring.losses_after(1, 2)] == [2]
    assert [loss.serial for loss in ring.losses_after(0, 1)] == [1]
    assert ring.losses_after(2, 2) == ()
    assert ring.lost == 12
