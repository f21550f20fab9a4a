"""Flows from before the ring: what the agent's event store on the disk remembers, under the same filters."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from axoneme.core import logs
from axoneme.core.events.rules import Rule
from axoneme.core.events.store.reader import Damage, Stretch, scan
from axoneme.plugins.hubble.columns import Array, View
from axoneme.plugins.hubble.directory import endpoint_message
from axoneme.plugins.hubble.enrich import Enricher, Join
from axoneme.plugins.hubble.names import Names, Node
from axoneme.plugins.hubble.policies import Policies
from axoneme.plugins.hubble.proto.flow_pb2 import Flow, NetworkInterface
from axoneme.plugins.hubble.query import Query
from axoneme.plugins.hubble.ring import Ring
from axoneme.plugins.hubble.uuids import Uuids
from axoneme.plugins.hubble.wire import Wire

if TYPE_CHECKING:
    from axoneme.plugins.hubble.proto.observer_pb2 import GetFlowsRequest

_log = logs.get(__name__)

#: By how much a record's time may be earlier than that of one before, in ns: drops have a coarse clock.
_BLUR: Final = 20_000_000

#: What tells flows of the same time apart.
_SAME: Final = (
    "source_high", "source_low", "destination_high", "destination_low", "source_port", "destination_port",
    "event_type", "sub_type", "verdict", "direction", "trace_reason",
)  # fmt: skip
_KEY: Final = np.dtype([(name, np.uint64) for name in ("recorded", *_SAME)])


class _Rules:
    """The rules that the store knows of, as `Policies` asks for them. A rule's number never means another one later."""

    def __init__(self) -> None:
        self.rows: dict[int, Rule] = {}

    @property
    def revision(self) -> int:
        return len(self.rows)

    def get(self, key: int) -> Rule | None:
        return self.rows.get(key)


class History:
    """One reading of the store, for one request that begins before the ring.

    :param cluster: in front of the node's name.
    :ivar over: nothing that comes later is asked for.
    """

    def __init__(
        self, request: GetFlowsRequest, folder: Path, cluster: str, *, policy_verdicts: bool
    ) -> None:
        self._folder, self._cluster = folder, cluster
        self._policy_verdicts = policy_verdicts
        self._names = Names()
        self._rules = _Rules()
        self._last = 0
        # The same in every reading, and after a restart.
        key = blake2b(b"axoneme hubble history", digest_size=16).digest()
        self._wire = Wire(Uuids(key), Policies(self._rules))
        self._query = Query.of(request, self._decode, self._wire.uuids)
        self.over = False

    async def answer(self, ring: Ring, portion: int) -> AsyncIterator[bytes]:
        """Serialized `GetFlowsResponse`s of what is older than the ring, some at a time."""
        query, left = self._query, self._query.most
        async for stretch in self._views(query.since or 0, ring):
            for view in stretch.chunks(query.filter.chunk):
                chosen, self.over = query.until_end(view)
                places = query.filter.places(chosen)[:left]
                for begin in range(0, len(places), portion):
                    for message in query.messages(self._wire, chosen, places[begin : begin + portion]):
                        yield message
                left = None if left is None else left - len(places)
                if self.over or left == 0:
                    return
                await asyncio.sleep(0)

    def _decode(self, view: View, places: Array) -> list[Flow]:
        return [Flow.FromString(flow) for flow in self._wire.flows(view, places)]

    async def _views(self, since: int, ring: Ring) -> AsyncIterator[View]:
        """Stretches of flows from a time on (ns since 1970) that are older than what a ring has; the disk is read in a thread."""
        until, told = (1 << 63) - 1, Counter[bytes]()
        if len(ring):
            until = int(_recorded(ring.view(ring.tail, ring.tail + 1))[0]) + _BLUR
            told = _first(ring, until)
        damage = Damage()
        stretches = scan(self._folder, since, until, damage=damage)
        while (stretch := await asyncio.to_thread(_next, stretches)) is not None:
            view = self._view(stretch)
            if told and int(view["time"][-1]) >= until - 2 * _BLUR:
                view = _without(view, told)
            if len(view):
                yield view
        if damage.frames or damage.segments:
            _log.warning("event store damaged", frames=damage.frames, segments=damage.segments)

    def _view(self, stretch: Stretch) -> View:
        self._rules.rows.update(stretch.names.rules)
        names, node = self._names, Node(f"{self._cluster}/{stretch.node}")
        enricher = Enricher(
            Join(lambda key: self._endpoint(stretch, key)),
            Join(lambda index: names.interfaces.number(NetworkInterface(index=index)) if index else 0),
            names.nodes.number(node),
            policy_verdicts=self._policy_verdicts,
        )
        columns = enricher.columns(stretch.records, self._last, offset=0)
        self._last = int(columns["time"][-1])
        return View(0, columns, names, ids=columns["time"])

    def _endpoint(self, stretch: Stretch, key: int) -> int:
        number, identity = key >> 32, key & 0xFFFFFFFF
        row, known = stretch.names.endpoints.get(number), stretch.names.identities.get(identity)
        return self._names.endpoints.number(
            endpoint_message(number, identity, row, known.labels if known else ())
        )


def _next(stretches: Iterator[Stretch]) -> Stretch | None:
    return next(stretches, None)


def _recorded(view: View) -> Array:
    """The times of the records, which store and ring have alike (`wall_offset`)."""
    times: Array = view["time"] - view["lift"]
    return times


def _keys(view: View) -> list[bytes]:
    rows = np.empty(len(view), _KEY)
    rows["recorded"] = _recorded(view)
    for name in _SAME:
        rows[name] = view[name]
    keys: list[bytes] = rows.view(f"V{rows.itemsize}").tolist()
    return keys


def _first(ring: Ring, until: int) -> Counter[bytes]:
    """The first flows of a ring, recorded up to a time, by what tells them apart, and how many there are of each."""
    found: Counter[bytes] = Counter()
    for view in ring.views(ring.tail, ring.head):
        end = int(np.searchsorted(view["time"], np.uint64(until + _BLUR), side="right"))
        found.update(_keys(view.part(0, end)))
        if end < len(view):
            break
    return found


def _without(view: View, told: Counter[bytes]) -> View:
    """A view without the flows that are in the ring, too; of equal ones as many less as the ring has."""
    keep = np.ones(len(view), bool)
    for place, key in enumerate(_keys(view)):
        if told[key] > 0:
            told[key] -= 1
            keep[place] = False
    return view.chosen(np.flatnonzero(keep))
