"""What this node observed, and how it is read: the one object that servers, metrics, exporters and the UI share.

observer = of(context)                        # the same object for everybody of this plugin
async for message in observer.get_flows(request): ...     # serialized observer.GetFlowsResponse, one each
async for batch in observer.listen(): ...     # everything that is new from now on, in bulk
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

import numpy as np
from attrs import field, frozen

from axoneme.core.events.rules import RULES, Rule
from axoneme.core.plugin import PluginContext
from axoneme.plugins.hubble import load
from axoneme.plugins.hubble.columns import Array, View
from axoneme.plugins.hubble.directory import Directory
from axoneme.plugins.hubble.dnsnames import DnsNames
from axoneme.plugins.hubble.enrich import Enricher
from axoneme.plugins.hubble.filters.errors import CombinationError, RequestError
from axoneme.plugins.hubble.history import History
from axoneme.plugins.hubble.l7 import flow_of
from axoneme.plugins.hubble.names import Node
from axoneme.plugins.hubble.policies import Policies
from axoneme.plugins.hubble.proto.flow_pb2 import Flow, LostEvent, LostEventSource
from axoneme.plugins.hubble.query import Query
from axoneme.plugins.hubble.reader import Portions, Reader, lost_event
from axoneme.plugins.hubble.ring import CHUNK, Loss, Ring, rising
from axoneme.plugins.hubble.services import Services
from axoneme.plugins.hubble.uuids import Uuids
from axoneme.plugins.hubble.wire import Wire

if TYPE_CHECKING:
    from axoneme.core.events.requests import RequestListener
    from axoneme.core.events.stream import Listener
    from axoneme.plugins.hubble.proto.observer_pb2 import GetFlowsRequest

__all__ = ["Batch", "CombinationError", "Observer", "RequestError", "Status", "of"]

#: Records that are made flows at once: what fits into the processor's caches.
_PORTION: Final = 8192
_HOUR: Final = 3600 * 1_000_000_000


@frozen(kw_only=True)
class Status:
    """The numbers of `observer.ServerStatusResponse`. `flows_rate` is flows per second of the last minute."""

    num_flows: int
    max_flows: int
    seen_flows: int
    uptime_ns: int
    flows_rate: float


@frozen(eq=False)
class Batch:
    """New flows, oldest first. To be used before anything is awaited.

    :param view: the flows as columns; `view.names` says what the numbers in them stand for.
    :param lost: what was lost before them, as the messages that clients get.
    """

    view: View
    _wire: Wire
    lost: tuple[LostEvent, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.view)

    @property
    def rules(self) -> int:
        """The same as long as what is known of the policies' rules is."""
        return self._wire.rules

    def flows(self, places: Array | None = None) -> list[Flow]:
        """These places of them, or all, as protobuf messages."""
        chosen = np.arange(len(self.view)) if places is None else places
        return [Flow.FromString(flow) for flow in self._wire.flows(self.view, chosen)]


class Observer:
    """The flows of this node.

    :ivar node_name: CLUSTER/NODE, as in every flow.
    """

    def __init__(self, context: PluginContext) -> None:
        config = context.config
        self.node_name = f"{config.cluster}/{context.settings.node.node_name()}"
        self.ring = Ring(config.flows)
        self._policies = Policies(context.state.table(RULES.name, Rule))
        self.wire = Wire(Uuids(), self._policies)
        self._portions = Portions(self.ring, self.wire)
        self._context = context
        self._node = Node(self.node_name)
        self._directory = Directory(context.state, self.ring.names)
        self._services = Services(context.state, self.ring.names)
        self._dns = DnsNames(context.state, self.ring.names)
        self._started = time.monotonic_ns()
        self._namespaces: dict[tuple[str, str], int] = {}
        self._noted = 0

    # Taking in

    async def run(self, ready: Callable[[], None]) -> None:
        """The service: from the kernel's events to flows, until cancelled."""
        stream = self._context.events
        with stream.listen() as listener, stream.requests.listen() as requests:
            ready()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._records(listener))
                tasks.create_task(self._requests(requests))

    async def _records(self, listener: Listener) -> None:
        stream = self._context.events
        kernel, queue = stream.lost, 0
        async for records in listener.batches():
            kernel, queue = self._count_losses(stream.lost, kernel, listener, queue)
            self.take(records)

    async def _requests(self, listener: RequestListener) -> None:
        lost = 0
        async for requests in listener.batches():
            if listener.lost > lost:
                self.ring.lose(LostEventSource.OBSERVER_EVENTS_QUEUE, listener.lost - lost, time.time_ns())
                lost = listener.lost
            self.add(
                flow_of(each, self._directory.endpoint, self._dns.of, self._policies) for each in requests
            )

    def _count_losses(self, now: int, kernel: int, listener: Listener, queue: int) -> tuple[int, int]:
        if now > kernel:
            self.ring.lose(LostEventSource.PERF_EVENT_RING_BUFFER, now - kernel, time.time_ns())
        if listener.lost > queue:
            self.ring.lose(LostEventSource.OBSERVER_EVENTS_QUEUE, listener.lost - queue, time.time_ns())
        return now, listener.lost

    def take(self, records: Array) -> None:
        """Takes in records of the kernel (`abi.EVENT`)."""
        portion = min(_PORTION, self.ring.capacity // 4)
        for begin in range(0, len(records), portion):
            self._directory.refresh()
            self._services.refresh()
            self._dns.refresh()
            enricher = Enricher(
                self._directory.endpoints, self._directory.interfaces, self.ring.names.nodes.number(self._node),
                fill=(self._services.fill, self._dns.fill), policy_verdicts=self._context.config.policy_verdicts,
            )  # fmt: skip
            columns = enricher.columns(records[begin : begin + portion], self.ring.last_time)
            if self.ring.head - self._noted + len(columns["time"]) > self.ring.capacity:
                self._note_namespaces()  # before they are overwritten
            self.ring.append(columns)

    def add(self, flows: Iterable[Flow]) -> None:
        """Takes in flows that others made: layer 7, authentication. What they leave out (time, uuid, node) is filled in."""
        made = [self._completed(flow) for flow in flows]
        if not made:
            return
        columns = load.columns_of(made, self.ring.names)
        columns["time"] = rising(columns["time"], self.ring.last_time)
        for flow, moment in zip(made, columns["time"].tolist(), strict=True):
            flow.time.FromNanoseconds(moment)
        self.ring.append(columns, {place: flow.SerializeToString() for place, flow in enumerate(made)})

    def _completed(self, flow: Flow) -> Flow:
        made = Flow()
        made.CopyFrom(flow)
        made.uuid = made.uuid or str(uuid.uuid4())
        made.node_name = made.node_name or self.node_name
        if not made.HasField("time"):
            made.time.FromNanoseconds(time.time_ns())
        return made

    # Reading

    def status(self) -> Status:
        ring, now = self.ring, time.time_ns()
        recent = ring.head - ring.since(now - 60_000_000_000)
        seconds = 60.0
        if recent == ring.capacity:  # all of the ring is younger than that
            oldest = int(ring.view(ring.tail, ring.tail + 1)["time"][0])
            seconds = max((now - oldest) / 1e9, 1e-3)
        return Status(
            num_flows=len(ring),
            max_flows=ring.capacity,
            seen_flows=ring.head,
            uptime_ns=time.monotonic_ns() - self._started,
            flows_rate=recent / seconds,
        )

    def namespaces(self) -> list[tuple[str, str]]:
        """(cluster, namespace), sorted, of the flows of the last hour."""
        self._note_namespaces()
        oldest = time.time_ns() - _HOUR
        self._namespaces = {name: seen for name, seen in self._namespaces.items() if seen >= oldest}
        return sorted(self._namespaces)

    def _note_namespaces(self) -> None:
        """When each was seen last, of the flows since the last time."""
        endpoints = self.ring.names.endpoints
        last = np.zeros(len(endpoints), np.uint64)
        for view in self.ring.views(self._noted, self.ring.head, CHUNK):
            last[view["source"]] = last[view["destination"]] = view["time"]
        self._noted = self.ring.head
        for number in np.flatnonzero(last).tolist():
            if (endpoint := endpoints[number]) is not None and endpoint.namespace:
                name = (self._context.config.cluster, endpoint.namespace)
                self._namespaces[name] = max(self._namespaces.get(name, 0), int(last[number]))

    def get_flows(self, request: GetFlowsRequest) -> AsyncIterator[bytes]:
        """The answer to a request: serialized `observer.GetFlowsResponse`, for a handler whose serializer is the identity.

        Ends when the request is answered; with `follow`, never. A reader that is too slow gets `lost_events` with the exact
        number and goes on with the oldest that is there; it holds up nobody and takes no memory.

        :raises RequestError: at the first step, before anything was yielded.
        """

        def asked() -> tuple[Query, History | None]:
            query = Query.of(request, self._decode, self.wire.uuids)
            return query, self._history(request, query)

        return Reader(self.ring, self._portions, self.node_name).answer(asked)

    def _history(self, request: GetFlowsRequest, query: Query) -> History | None:
        """What the disk remembers, for a request that begins before the ring does."""
        ring, settings = self.ring, self._context.settings
        if query.since is None or not settings.events.store.enabled:
            return None
        if len(ring) and query.since >= int(ring.view(ring.tail, ring.tail + 1)["time"][0]):
            return None
        config, folder = self._context.config, settings.agent.state_dir / "events"
        return History(request, folder, config.cluster, policy_verdicts=config.policy_verdicts)

    def _decode(self, view: View, places: Array) -> list[Flow]:
        return [Flow.FromString(flow) for flow in self.wire.flows(view, places)]

    async def listen(self) -> AsyncIterator[Batch]:
        """Every flow from now on, unfiltered, in batches as the kernel's events come (some hundred per second at most).

        Whoever is too slow is told what he missed, and goes on with what is there.
        """
        ring = self.ring
        position, told = ring.head, ring.losses[-1].serial if ring.losses else 0
        while True:
            lost = [lost_event(loss) for loss in ring.losses_after(told, ring.head)]
            told = ring.losses[-1].serial if ring.losses else 0
            if missed := max(0, ring.tail - position):
                position += missed
                lost.append(lost_event(Loss(0, 0, LostEventSource.HUBBLE_RING_BUFFER, missed, 0)))
            view = ring.view(position, min(ring.head, position + CHUNK))
            position += len(view)
            if len(view) or lost:
                yield Batch(view, self.wire, tuple(lost))
            else:
                await ring.wait()


_observers: WeakValueDictionary[int, Observer] = WeakValueDictionary()


def of(context: PluginContext) -> Observer:
    """The one observer of a context."""
    found: Any = _observers.get(id(context))
    if found is None or found._context is not context:
        found = _observers[id(context)] = Observer(context)
    return found  # type: ignore[no-any-return]
