"""Batches reach every listener; a slow one loses its own oldest records and nobody else's."""

from __future__ import annotations

import asyncio

import numpy as np

from axoneme.core.datapath.abi import EVENT, EventType
from axoneme.core.events.stream import EventStream, Listener, Records


def records(*types: EventType) -> Records:
    made = np.zeros(len(types), EVENT.dtype)
    made["type"] = types
    return made


async def take(listener: Listener, count: int) -> list[int]:
    """The first `count` records' times."""
    times: list[int] = []
    async with asyncio.timeout(5):
        async for batch in listener.batches():
            times += batch["time"].tolist()
            if len(times) >= count:
                return times
    return times


async def test_a_listener_hears_only_the_types_that_it_asked_for() -> None:
    stream = EventStream()
    with stream.listen([EventType.DROP]) as drops, stream.listen() as everything:
        batch = records(EventType.DROP, EventType.NEW, EventType.CLOSE, EventType.DROP)
        batch["time"] = [1, 2, 3, 4]
        stream.publish(batch)
        assert await take(drops, 2) == [1, 4]
        assert await take(everything, 4) == [1, 2, 3, 4]
    assert stream.counts == dict.fromkeys(EventType, 0) | {
        EventType.DROP: 2,
        EventType.NEW: 1,
        EventType.CLOSE: 1,
    }


async def test_who_is_too_slow_loses_the_oldest_and_knows_how_many() -> None:
    stream = EventStream()
    with stream.listen(backlog=10) as slow, stream.listen(backlog=1000) as patient:
        for number in range(10):
            batch = records(*[EventType.NEW] * 4)
            batch["time"] = number
            stream.publish(batch)
        assert slow.lost == 32
        assert await take(slow, 8) == [8] * 4 + [9] * 4
        assert patient.lost == 0


async def test_a_listener_that_left_hears_nothing() -> None:
    stream = EventStream()
    with stream.listen() as listener:
        pass
    stream.publish(records(EventType.NEW))
    assert not listener._batches
