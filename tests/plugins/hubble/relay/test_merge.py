"""The order of what several nodes send."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from axoneme.plugins.hubble.relay.merge import Merger


async def merged(streams: list[list[int]], size: int) -> tuple[list[int], int]:
    """What comes out of sorted streams that send as fast as they can, and how much was held at most."""
    merger: Merger[int] = Merger(size, 60.0)
    most = 0

    async def send(key: int, times: list[int]) -> None:
        for moment in times:
            await merger.put(key, moment, moment)
            if moment % 3 == 0:
                await asyncio.sleep(0)
        merger.remove(key)

    for key in range(len(streams)):
        merger.add(key)
    merger.close()
    out = []
    sending = [asyncio.ensure_future(send(key, times)) for key, times in enumerate(streams)]
    async for moment in merger.messages():
        most = max(most, merger.held)
        out.append(moment)
    await asyncio.gather(*sending)
    return out, most


@given(st.lists(st.lists(st.integers(0, 100), max_size=30).map(sorted), max_size=5), st.integers(1, 10))
@settings(max_examples=60, deadline=None)
def test_streams_that_are_in_order_come_out_in_order_and_little_is_held(
    streams: list[list[int]], size: int
) -> None:
    out, most = asyncio.run(merged(streams, size))
    assert out == sorted(moment for stream in streams for moment in stream)
    assert most <= size + len(streams)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_silent_stream_holds_up_the_others_once_and_not_for_longer_than_the_wait() -> None:
    clock = Clock()
    merger: Merger[str] = Merger(100, 10.0, clock)
    merger.add("loud")
    merger.add("silent")
    await merger.put("loud", 5, "a")
    assert merger._delay() == 10.0
    clock.now = 4.0
    await merger.put("silent", 3, "b")
    messages = merger.messages()
    assert await anext(messages) == "b"
    assert merger._delay() == 6.0  # it came at 0, and the silent stream ran dry at 4
    clock.now = 14.0
    assert await anext(messages) == "a"
    await merger.put("loud", 6, "c")
    assert merger._delay() == 0.0  # the silent one has been dry for the whole wait
    assert await anext(messages) == "c"
    merger.remove("silent")
    await merger.put("loud", 7, "d")
    assert await anext(messages) == "d"


async def test_a_sender_whose_share_is_full_waits() -> None:
    merger: Merger[int] = Merger(4, 60.0)
    merger.add("a")
    merger.add("b")
    await merger.put("a", 1, 1)
    await merger.put("a", 2, 2)
    third = asyncio.ensure_future(merger.put("a", 3, 3))
    await asyncio.sleep(0)
    assert not third.done()
    await merger.put("b", 1, 10)
    messages = merger.messages()
    assert await anext(messages) == 1
    await third
    assert merger.held == 3
