"""What the page asks of the ring: a stretch of time as a map and as rows, and how much happened when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import numpy as np
from attrs import define, field, frozen

from axoneme.core.events.rules import RULES, Rule
from axoneme.core.plugin import PluginContext
from axoneme.plugins.hubble import jsonpb, observer
from axoneme.plugins.hubble.columns import View
from axoneme.plugins.hubble.filters.compiler import Filter, compiled
from axoneme.plugins.hubble.proto.flow_pb2 import Flow
from axoneme.plugins.hubble.ring import CHUNK
from axoneme.plugins.hubble.ui import search
from axoneme.plugins.hubble.ui.edges import Edges
from axoneme.plugins.hubble.ui.parties import Parties
from axoneme.plugins.hubble.ui.rows import row

#: Rows of a whole stretch, and of one tick.
ROWS: Final = 500
TICK_ROWS: Final = 60

_DROPPED: Final = 2
_MS: Final = 1_000_000


@frozen
class Answer:
    """A stretch of flows.

    :param head: the number after its last flow.
    :param matched: flows that passed the filter; of them the newest are `rows`, newest first.
    """

    head: int
    matched: int
    rows: list[dict[str, Any]]
    edges: list[dict[str, Any]]
    count: int
    dropped: int


@define
class Known:
    """What a page was told already, and needs no more."""

    parties: dict[str, Any] = field(factory=dict)
    rules: set[int] = field(factory=set)


class Look:
    """Looks at the ring for the page."""

    def __init__(self, context: PluginContext) -> None:
        self._context = context
        self.observer = observer.of(context)
        self._ring = self.observer.ring
        self.parties = Parties(self._ring.names)

    def filter(self, text: str) -> Filter:
        """:raises SearchError, RequestError: what is wrong with it."""
        allowed, denied = search.filters(text)
        return compiled(allowed, denied, decode=self.observer._decode, uuids=self.observer.wire.uuids)

    def since(self, ms: float) -> int:
        """The number of the first flow at or after a time."""
        return self._ring.since(int(ms * _MS))

    async def stretch(self, begin: int, end: int, wanted: Filter, rows: int = ROWS) -> Answer:
        """The flows with these numbers that pass."""
        edges, numbers, matched = Edges(self.parties), [], 0
        async for view in self._views(begin, end):
            places = wanted.places(view)
            matched += len(places)
            edges.add(view, places)
            numbers.append(view.start + places[-rows:])
        newest = np.concatenate(numbers)[-rows:] if numbers else np.zeros(0, np.int64)
        return Answer(end, matched, self._rows(newest), edges.plain(), edges.count, edges.dropped)

    async def _views(self, begin: int, end: int) -> AsyncIterator[View]:
        """Whatever of it is still there; others get their turn between two of them."""
        while begin < min(end, self._ring.head):
            begin = max(begin, self._ring.tail)
            view = self._ring.view(begin, min(end, self._ring.head, begin + CHUNK))
            begin += len(view)
            yield view
            await asyncio.sleep(0)

    def _rows(self, numbers: Any) -> list[dict[str, Any]]:
        """The rows of flows with these ascending numbers, the newest first."""
        made: list[dict[str, Any]] = []
        for view in self._ring.views(int(numbers[0]), int(numbers[-1]) + 1) if len(numbers) else ():
            inside = numbers[(numbers >= view.start) & (numbers < view.start + len(view))]
            flows = self.observer.wire.flows(view, inside - view.start)
            made += [row(n, Flow.FromString(flow)) for n, flow in zip(inside.tolist(), flows, strict=True)]
        return made[::-1]

    def flow(self, number: int) -> Flow | None:
        """The whole of a flow; None when it is no longer there."""
        if not self._ring.tail <= number < self._ring.head:
            return None
        (message,) = self.observer.wire.flows(self._ring.view(number, number + 1), np.zeros(1, np.intp))
        return Flow.FromString(message)

    async def timeline(self, buckets: int, wanted: Filter) -> dict[str, Any]:
        """How much happened when, over all that is in the ring: counts per bucket, from the oldest flow until now."""
        now = time.time_ns()
        oldest = (
            int(self._ring.view(self._ring.tail, self._ring.tail + 1)["time"][0]) if len(self._ring) else now
        )
        width = max((now - oldest) // buckets + 1, _MS)
        counts = np.zeros((2, buckets), np.int64)
        async for view in self._views(self._ring.tail, self._ring.head):
            places = wanted.places(view)
            bucket = (view["time"][places].astype(np.int64) - oldest) // width
            dropped = view["verdict"][places] == _DROPPED
            for index, chosen in enumerate((~dropped, dropped)):
                inside = np.clip(bucket[chosen], 0, buckets - 1)
                counts[index] += np.bincount(inside, minlength=buckets)
        return {
            "from": oldest // _MS, "width": width / _MS, "forwarded": counts[0].tolist(), "dropped": counts[1].tolist(),
        }  # fmt: skip

    def news(self, edges: list[dict[str, Any]], known: Known) -> dict[str, Any]:
        """The parties and rules that edges speak of, as far as they are news."""
        parties = []
        for one in self.parties.all:
            if known.parties.get(one.id) is not one:
                known.parties[one.id] = one
                parties.append(one.plain())
        numbers = {number for edge in edges for number in edge["rules"]} - known.rules
        known.rules |= numbers
        return {"parties": parties, "rules": {number: self._rule(number) for number in numbers}}

    def _rule(self, number: int) -> dict[str, Any]:
        found = self._context.state.table(RULES.name, Rule).get(number)
        if found is None:
            return {"policy": "", "text": f"rule {number}", "effect": ""}
        return {
            "policy": f"{found.namespace}/{found.name}".strip("/"), "direction": found.direction, "path": found.path,
            "effect": found.effect, "file": found.file, "line": found.line, "text": found.describe(),
        }  # fmt: skip

    def details(self, number: int) -> dict[str, Any] | None:
        """All that is known of a flow: its row, and its message as JSON text."""
        flow = self.flow(number)
        return None if flow is None else {"row": row(number, flow), "flow": jsonpb.text(flow)}

    def status(self) -> dict[str, Any]:
        from axoneme.core.version import version

        seen = self.observer.status()
        return {
            "node": self.observer.node_name, "version": version(), "flows": seen.num_flows, "capacity": seen.max_flows,
            "seen": seen.seen_flows, "rate": seen.flows_rate, "lost": self._ring.lost,
            "namespaces": [name for _, name in self.observer.namespaces()],
        }  # fmt: skip
