"""What the agent did, as Hubble's agent events: endpoints, addresses and policies that came and went.

They are read from the tables of the core, kept in a small ring of their own, and answered by `GetAgentEvents`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from axoneme.core.state.resources import RESOURCES, Resource
from axoneme.core.state.watch import Change, ChangeKind, watch_many
from axoneme.core.workloads.endpoints import ENDPOINTS, IPCACHE, Endpoint, EndpointState, IpcacheEntry
from axoneme.plugins.hubble.proto import flow_pb2, observer_pb2
from axoneme.plugins.hubble.server.rpc import CallError

if TYPE_CHECKING:
    from axoneme.core.state.table import State

#: How many are kept.
SIZE: Final = 4096
_POLICIES: Final = frozenset({"CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy", "NetworkPolicy"})


class AgentEvents:
    """The newest events, oldest first.

    :param now: nanoseconds since 1970.
    """

    def __init__(self, node_name: str, now: Callable[[], int] = time.time_ns) -> None:
        self._node = node_name
        self._now = now
        self._events: deque[observer_pb2.GetAgentEventsResponse] = deque(maxlen=SIZE)
        self._end = 0
        self._news = asyncio.Event()

    def add(self, *events: flow_pb2.AgentEvent) -> None:
        for event in events:
            answer = observer_pb2.GetAgentEventsResponse(agent_event=event, node_name=self._node)
            answer.time.FromNanoseconds(self._now())
            self._events.append(answer)
            self._end += 1
        self._news.set()
        self._news = asyncio.Event()

    async def run(self, ready: Callable[[], None], state: State) -> None:
        """Until cancelled: what happens in the tables becomes events."""
        started = flow_pb2.AgentEvent(type=flow_pb2.AGENT_STARTED)
        started.agent_start.time.FromNanoseconds(self._now())
        self.add(started)
        endpoints = state.table(ENDPOINTS.name, Endpoint)
        tables: tuple[Any, ...] = (
            endpoints,
            state.table(IPCACHE.name, IpcacheEntry),
            state.table(RESOURCES.name, Resource),
        )
        makers: tuple[Callable[[Any], Iterable[flow_pb2.AgentEvent]], ...]
        makers = (endpoint_events, ipcache_events, policy_events)
        ready()
        async for batches in watch_many(*(table.watch() for table in tables)):
            for batch, make in zip(batches, makers, strict=True):
                for change in batch.changes if batch is not None else ():
                    self.add(*make(change))

    async def get(self, request: observer_pb2.GetAgentEventsRequest) -> AsyncIterator[bytes]:
        """Serialized answers; number, first, since, until and follow mean what they mean for flows."""
        if request.first and request.follow:
            raise CallError("INVALID_ARGUMENT", "first cannot be specified with follow")
        since = request.since.ToNanoseconds() if request.HasField("since") else None
        until = request.until.ToNanoseconds() if request.HasField("until") else None
        position, limit = self._start(request, since)
        while True:
            position = max(position, self._end - len(self._events))
            news = self._news
            while position < self._end and limit:
                answer = self._events[position - self._end]
                if until is not None and answer.time.ToNanoseconds() > until:
                    return
                position += 1
                limit -= 1
                yield answer.SerializeToString()
                position = max(position, self._end - len(self._events))
            if not request.follow:
                return
            await news.wait()

    def _start(self, request: observer_pb2.GetAgentEventsRequest, since: int | None) -> tuple[int, int]:
        """Where to begin, and after how many to stop."""
        first, endless = self._end - len(self._events), 1 << 62
        limit = endless if request.follow or not request.number else min(request.number, endless)
        if since is not None:
            earlier = sum(1 for answer in self._events if answer.time.ToNanoseconds() < since)
            return first + earlier, limit
        if request.first or (not request.number and not request.follow):
            return first, limit
        return max(first, self._end - min(request.number or 1, SIZE)), limit


def endpoint_events(change: Change[Endpoint]) -> Iterable[flow_pb2.AgentEvent]:
    row = change.row
    if change.kind is ChangeKind.UPDATE:
        if change.old is None or change.old.state is row.state:
            return
        if row.state in (EndpointState.READY, EndpointState.FAILED):
            failed = row.state is EndpointState.FAILED
            kind = flow_pb2.ENDPOINT_REGENERATE_FAILURE if failed else flow_pb2.ENDPOINT_REGENERATE_SUCCESS
            told = flow_pb2.EndpointRegenNotification(id=row.id, labels=row.labels, error=row.reason)
            yield flow_pb2.AgentEvent(type=kind, endpoint_regenerate=told)
        return
    kind = flow_pb2.ENDPOINT_DELETED if change.new is None else flow_pb2.ENDPOINT_CREATED
    update = flow_pb2.EndpointUpdateNotification(
        id=row.id, labels=row.labels, error=row.reason, pod_name=row.name, namespace=row.namespace
    )
    yield flow_pb2.AgentEvent(type=kind, endpoint_update=update)


def ipcache_events(change: Change[IpcacheEntry]) -> Iterable[flow_pb2.AgentEvent]:
    row, old = change.row, change.old
    told = flow_pb2.IPCacheNotification(
        cidr=str(row.prefix), identity=row.identity, host_ip=str(row.node or ""), encrypt_key=row.key
    )
    if old is not None and change.new is not None:
        told.old_identity.value = old.identity
        told.old_host_ip = str(old.node or "")
    kind = flow_pb2.IPCACHE_DELETED if change.new is None else flow_pb2.IPCACHE_UPSERTED
    yield flow_pb2.AgentEvent(type=kind, ipcache_update=told)


def policy_events(change: Change[Resource]) -> Iterable[flow_pb2.AgentEvent]:
    row = change.row
    if row.kind not in _POLICIES:
        return
    gone = change.new is None or not change.new.in_effect
    if gone and (change.old is None or not change.old.in_effect):
        return
    told = flow_pb2.PolicyUpdateNotification(
        labels=policy_labels(row), revision=change.revision, rule_count=_rules(row)
    )
    yield flow_pb2.AgentEvent(
        type=flow_pb2.POLICY_DELETED if gone else flow_pb2.POLICY_UPDATED, policy_update=told
    )


def policy_labels(row: Resource) -> list[str]:
    """The labels by which Cilium knows the rules of an object."""
    labels = {"derived-from": row.kind, "name": row.name, "uid": row.uid}
    if row.namespace:
        labels["namespace"] = row.namespace
    return [f"k8s:io.cilium.k8s.policy.{key}={value}" for key, value in sorted(labels.items()) if value]


def _rules(row: Resource) -> int:
    """An object has one `spec`, or several `specs`, or both."""
    specs = row.raw.get("specs")
    return int("spec" in row.raw) + (len(specs) if isinstance(specs, list) else 0)
