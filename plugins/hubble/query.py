"""What a request asks for: where it begins, where it ends, which flows, and which of their fields."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np
from attrs import frozen

from axoneme.plugins.hubble.columns import Array, View
from axoneme.plugins.hubble.filters.compiler import Filter, compiled
from axoneme.plugins.hubble.filters.errors import CombinationError
from axoneme.plugins.hubble.masks import Mask, mask
from axoneme.plugins.hubble.proto.flow_pb2 import Flow
from axoneme.plugins.hubble.ring import Ring
from axoneme.plugins.hubble.wire import Wire, response

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from axoneme.plugins.hubble.filters.predicates import Decode
    from axoneme.plugins.hubble.proto.observer_pb2 import GetFlowsRequest
    from axoneme.plugins.hubble.uuids import Uuids


@frozen(kw_only=True)
class Query:
    """A request that makes sense.

    :param since, until: ns since 1970, both included.
    """

    filter: Filter
    number: int = 0
    first: bool = False
    follow: bool = False
    since: int | None = None
    until: int | None = None
    mask: Mask | None = None

    @classmethod
    def of(cls, request: GetFlowsRequest, decode: Decode, uuids: Uuids | None) -> Query:
        """:raises RequestError: what is wrong with it."""
        if request.first and request.follow:
            raise CombinationError("first cannot be specified with follow")
        paths = request.field_mask.paths or request.experimental.field_mask.paths
        return cls(
            filter=compiled(request.whitelist, request.blacklist, decode=decode, uuids=uuids),
            number=request.number,
            first=request.first,
            follow=request.follow,
            since=_ns(request.since) if request.HasField("since") else None,
            until=_ns(request.until) if request.HasField("until") else None,
            mask=mask(paths),
        )

    @property
    def most(self) -> int | None:
        """How many flows are sent at most; None for no limit. Of the last N, the beginning sees to it."""
        limited = self.number and (self.first or self.since is not None)
        return self.number if limited and not self.follow else None

    async def begin(self, ring: Ring) -> int:
        """The number of the flow to begin with, as Hubble's observer does: `since` before `first` before the last N."""
        if self.since is not None:
            return ring.since(self.since)
        if self.first:
            return ring.tail
        if self.number:
            return await self._last(ring)
        return max(ring.tail, ring.head - 1) if self.follow else ring.tail

    def until_end(self, view: View) -> tuple[View, bool]:
        """What of a view is not later than `until`, and whether anything was."""
        if self.until is None or (len(view) and int(view["time"][-1]) <= self.until):
            return view, False
        place = int(np.searchsorted(view["time"], np.uint64(max(self.until, 0)), side="right"))
        return view.part(0, place), True

    def messages(self, wire: Wire, view: View, places: Array) -> list[bytes]:
        """The answers that carry these flows, or what the mask leaves of them."""
        if self.mask is None:
            return wire.responses(view, places)
        return [response(self.mask(Flow.FromString(flow))) for flow in wire.flows(view, places)]

    async def _last(self, ring: Ring) -> int:
        """The number of the N-th newest flow that matches, whatever `until` says."""
        left, end = self.number, ring.head
        while end > ring.tail:
            view = ring.before(end, self.filter.chunk)
            places = self.filter.places(view)
            if len(places) >= left:
                return view.start + int(places[-left])
            left -= len(places)
            end = view.start
            await asyncio.sleep(0)
        return ring.tail


def _ns(moment: Timestamp) -> int:
    """Within what the ring's clock can say; nothing is earlier or later."""
    return min(max(moment.seconds * 1_000_000_000 + moment.nanos, 0), (1 << 63) - 1)
