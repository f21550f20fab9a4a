"""Answers a query out of the ring, in small portions, however slow whoever asked is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

import numpy as np

from axoneme.plugins.hubble.columns import Array
from axoneme.plugins.hubble.history import History
from axoneme.plugins.hubble.proto.flow_pb2 import LostEvent, LostEventSource
from axoneme.plugins.hubble.proto.observer_pb2 import GetFlowsResponse
from axoneme.plugins.hubble.query import Query
from axoneme.plugins.hubble.ring import Loss, Ring
from axoneme.plugins.hubble.wire import Wire

#: Messages that are made at once: what a reader who stops reading costs.
PORTION: Final = 1024


class Portions:
    """Makes the messages of a ring's flows. The last ones are kept: many who follow want the same, one after the other."""

    def __init__(self, ring: Ring, wire: Wire) -> None:
        self._ring, self._wire = ring, wire
        self._numbers: Array = np.zeros(0, np.int64)
        self._messages: list[bytes] = []

    def of(self, numbers: Array, query: Query) -> list[bytes]:
        """:param numbers: of flows that are still there."""
        first = int(numbers[0])
        if query.mask is not None:
            return query.messages(self._wire, self._ring.view(first, int(numbers[-1]) + 1), numbers - first)
        if not np.array_equal(numbers, self._numbers):
            view = self._ring.view(first, int(numbers[-1]) + 1)
            self._numbers, self._messages = numbers, query.messages(self._wire, view, numbers - first)
        return self._messages


class Reader:
    """One reader's place in the ring.

    :param node: this node's name, for messages about losses.
    """

    def __init__(self, ring: Ring, portions: Portions, node: str) -> None:
        self._ring, self._portions, self._node = ring, portions, node
        self._told = 0

    async def answer(self, asked: Callable[[], tuple[Query, History | None]]) -> AsyncIterator[bytes]:
        """Serialized `GetFlowsResponse`s.

        :param asked: makes the query, and what was before the ring, if the query asks for it. Called at the first step.
        """
        query, history = asked()
        left, end = query.most, self._ring.head
        position = await query.begin(self._ring)
        self._told = max((loss.serial for loss in self._ring.losses if loss.position <= position), default=0)
        if history is not None:
            async for message in history.answer(self._ring, PORTION):
                yield message
                left = None if left is None else left - 1
            if history.over:
                return
        while left is None or left > 0:
            for loss in self._ring.losses_after(self._told, position if query.follow else end):
                self._told = loss.serial
                yield lost_response(loss, self._node)
            end = self._ring.head if query.follow else end
            if (missed := min(self._ring.tail, end) - position) > 0:
                position += missed
                yield lost_response(self._overrun(missed), self._node)
                continue
            if position >= end:
                if not query.follow:
                    return
                await self._ring.wait()
                continue
            view, over = query.until_end(self._ring.view(position, min(end, position + query.filter.chunk)))
            numbers = query.filter.places(view)[:left] + view.start
            position += len(view)
            for begin in range(0, len(numbers), PORTION):
                portion = numbers[begin : begin + PORTION]
                if portion[0] < self._ring.tail:  # overwritten while the last ones were sent
                    position, over = int(portion[0]), False
                    break
                for message in self._portions.of(portion, query):
                    yield message
                left = None if left is None else left - len(portion)
            else:
                await asyncio.sleep(
                    0
                )  # a filter that lets nothing pass must not keep the others from their turn
            if over:
                return

    def _overrun(self, count: int) -> Loss:
        return Loss(0, 0, LostEventSource.HUBBLE_RING_BUFFER, count, self._ring.last_time)


def lost_event(loss: Loss) -> LostEvent:
    return LostEvent(source=LostEventSource.Name(loss.source), num_events_lost=loss.count)


def lost_response(loss: Loss, node: str) -> bytes:
    made = GetFlowsResponse(lost_events=lost_event(loss), node_name=node)
    made.time.FromNanoseconds(loss.time)
    return made.SerializeToString()
