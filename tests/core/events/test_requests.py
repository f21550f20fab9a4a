"""Requests that proxies tell: to everybody who listens, in bounded queues."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address

from axoneme.core.events.requests import Dns, Outcome, Request, RequestStream


def request(number: int) -> Request:
    return Request(
        time=number, source=IPv4Address("10.0.0.1"), source_port=1, destination=IPv4Address("10.0.0.2"),
        destination_port=53, protocol=17, outcome=Outcome.FORWARDED, what=Dns(query="a.", types=("A",)),
    )  # fmt: skip


async def test_who_listens_hears() -> None:
    stream = RequestStream()
    assert not stream.heard
    stream.tell(request(0))
    with stream.listen() as one, stream.listen(backlog=2) as slow:
        assert stream.heard
        batches, slowly = one.batches(), slow.batches()
        waiting = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0)
        stream.tell(request(1), request(2))
        assert [each.time for each in await waiting] == [1, 2]
        stream.tell(request(3))
        stream.tell(request(4))
        assert [each.time for each in await anext(batches)] == [3, 4]
        assert [each.time for each in await anext(slowly)] == [3, 4]
        assert (one.lost, slow.lost) == (0, 2)
    assert not stream.heard
