"""Answers a query out of the ring, in small portions, however slow whoever asked is."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

import numpy as np

from axoneme.plugins.hubble.columns import Array
from axoneme.plugins.hubble.history import History
from axoneme.plugins.hubble.masks import Mask
from axoneme.plugins.hubble.proto.flow_pb2 import LostEvent, LostEventSource
from axoneme.plugins.hubble.proto.observer_pb2 import GetFlowsResponse
from axoneme.plugins.hubble.query import Query
from axoneme.plugins.hubble.ring import Loss, Ring
from axoneme.plugins.hubble.wire import Wire

#: Messages that are made at once: what a reader who stops reading costs.
PORTION: Final = 1024


#: Masks for which the last messages are kept.
MASKS: Final = 4


class Portions:
    """Makes the messages of a ring's flows. The last ones are kept: many who follow want the same, one after the other."""

    def __init__(self, ring: Ring, wire: Wire) -> None:
        self._ring, self._wire = ring, wire
        self._made: OrderedDict[Mask | None, tuple[Array, list[bytes]]] = OrderedDict()

    def of(self, numbers: Array, query: Query) -> list[bytes]:
        """:param numbers: of flows that are still there."""
        last, messages = self._made.get(query.mask, (None, []))
        if last is None or not np.array_equal(numbers, last):
            first = int(numbers[0])
            view = self._ring.view(first, int(numbers[-1]) + 1)
            messages = query.messages(self._wire, view, numbers - first)
            self._made[query.mask] = (numbers, messages)
            if len(self._made) > MASKS:
                self._made.popitem(last=False)
        return messages


class Reader:
    """One reader's place in the ring.

    :param node: this node's name, for messages about losses.
    """

    def __init__(self, ring: Ring, portions: Portions, node: str) -> None:
        self._ring, self._portions, self._node = ring, portions, node
        #: The number of the next flow to look at, that of the first one that is not asked for, and the last loss told.
        self._position = self._end = self._told = 0
        self._left: int | None = None

    async def answer(self, asked: Callable[[], tuple[Query, History | None]]) -> AsyncIterator[bytes]:
        """Serialized `GetFlowsResponse`s.

        :param asked: makes the query, and what was before the ring, if the query asks for it. Called at the first step.
        """
        query, history = asked()
        self._left, self._end = query.most, self._ring.head
        self._position = await query.begin(self._ring)
        earlier = [loss.serial for loss in self._ring.losses if loss.position <= self._position]
        self._told = max(earlier, default=0)
        if history is not None:
            async for message in history.answer(self._ring, PORTION):
                yield message
                self._sent(1)
            if history.over:
                return
        while self._left is None or self._left > 0:
            for message in self._lost(query):
                yield message
            if self._position >= self._end:
                if not query.follow:
                    return
                await self._ring.wait()
                continue
            numbers, over = self._chosen(query)
            for begin in range(0, len(numbers), PORTION):
                portion = numbers[begin : begin + PORTION]
                if portion[0] < self._ring.tail:  # overwritten while the last ones were sent
                    self._position, over = int(portion[0]), False
                    break
                for message in self._portions.of(portion, query):
                    yield message
                self._sent(len(portion))
            if over:
                return
            await asyncio.sleep(0)  # a filter that lets nothing pass must not keep the others from their turn

    def _sent(self, count: int) -> None:
        self._left = None if self._left is None else self._left - count

    def _lost(self, query: Query) -> Iterator[bytes]:
        """What was lost before the next flow, or was overwritten before it was read."""
        for loss in self._ring.losses_after(self._told, self._position if query.follow else self._end):
            self._told = loss.serial
            yield lost_response(loss, self._node)
        self._end = self._ring.head if query.follow else self._end
        if (missed := min(self._ring.tail, self._end) - self._position) > 0:
            self._position += missed
            loss = Loss(0, 0, LostEventSource.HUBBLE_RING_BUFFER, missed, self._ring.last_time)
            yield lost_response(loss, self._node)

    def _chosen(self, query: Query) -> tuple[Array, bool]:
        """The numbers of the next flows to send, and whether none of those behind them is asked for."""
        end = min(self._end, self._position + query.filter.chunk)
        view, over = query.until_end(self._ring.view(self._position, end))
        self._position += len(view)
        return query.filter.places(view)[: self._left] + view.start, over


def lost_event(loss: Loss) -> LostEvent:
    return LostEvent(source=LostEventSource.Name(loss.source), num_events_lost=loss.count)


def lost_response(loss: Loss, node: str) -> bytes:
    made = GetFlowsResponse(lost_events=lost_event(loss), node_name=node)
    made.time.FromNanoseconds(loss.time)
    return made.SerializeToString()
