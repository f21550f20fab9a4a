"""One request for flows, answered by many nodes: their answers in order, and what happens to the nodes meanwhile."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Coroutine, Iterable
from typing import Any, Final

from axoneme.core import logs
from axoneme.plugins.hubble.proto import observer_pb2, relay_pb2
from axoneme.plugins.hubble.relay.merge import Merger
from axoneme.plugins.hubble.relay.pool import Node, Pool

_log = logs.get(__name__)

#: After these a node may answer again; others would only be repeated.
_TRANSIENT: Final = frozenset(
    {"UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "RESOURCE_EXHAUSTED"}
)
#: Seconds between two looks for nodes that came or came back, while a request is followed.
LOOK: Final = 2.0
#: Seconds within which equal errors of several nodes are told together.
GATHER: Final = 0.3


class FlowsCall:
    """One request.

    :param metadata: of the client, which nodes get unchanged.
    """

    def __init__(
        self,
        pool: Pool,
        request: observer_pb2.GetFlowsRequest,
        metadata: tuple[tuple[str, str], ...],
        size: int,
        wait: float,
    ) -> None:
        self._pool = pool
        self._request = request
        self._metadata = metadata
        self._merger: Merger[bytes] = Merger(size, wait)
        self._names: set[str] = set()
        #: The newest time that came of each node, to go on from when it comes back.
        self._newest: dict[str, int] = {}
        self._errors: dict[str, list[str]] = {}
        self._host = socket.gethostname()
        self._tasks: set[asyncio.Task[None]] = set()

    async def answers(self) -> AsyncIterator[bytes]:
        """Serialized `observer.GetFlowsResponse`: the nodes' states first, then flows."""
        nodes = self._pool.nodes
        up, down = [n for n in nodes if n.up], [n for n in nodes if not n.up]
        for state, group in ((relay_pb2.NODE_CONNECTED, up), (relay_pb2.NODE_UNAVAILABLE, down)):
            if group:
                yield self._status(state, [node.name for node in group])
        self._join(up)
        if self._request.follow:
            self._spawn(self._watch())
        else:
            self._merger.close()
        try:
            async for message in self._merger.messages():
                yield message
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a relayed request failed in part", error=error)

    def _join(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            if node.name not in self._names:
                self._names.add(node.name)
                self._merger.add(node.name)
                self._spawn(self._collect(node))

    async def _watch(self) -> None:
        """Nodes that came since, or came back, join in."""
        while True:
            await asyncio.sleep(LOOK)
            self._join([node for node in self._pool.nodes if node.up])

    async def _collect(self, node: Node) -> None:
        import grpc

        call = node.channel.unary_stream(
            "/observer.Observer/GetFlows",
            request_serializer=observer_pb2.GetFlowsRequest.SerializeToString,
            response_deserializer=None,
        )(self._request_for(node.name), metadata=self._metadata)
        again = True
        try:
            async for data in call:
                moment = _time(data)
                if moment:
                    self._newest[node.name] = moment
                await self._merger.put(node.name, moment or time.time_ns(), data)
        except grpc.aio.AioRpcError as error:
            again = error.code().name in _TRANSIENT
            self._failed(node.name, f"{error.code().name}: {error.details()}")
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            self._failed(node.name, "UNAVAILABLE: the connection was closed")  # by the pool, under the call
        finally:
            call.cancel()
            self._merger.remove(node.name)
            if again:
                self._names.discard(node.name)

    def _request_for(self, name: str) -> observer_pb2.GetFlowsRequest:
        """The client's request, or, of a node that had answered already, only what is newer."""
        newest = self._newest.get(name)
        if newest is None:
            return self._request
        again = observer_pb2.GetFlowsRequest()
        again.CopyFrom(self._request)
        again.number = 0
        again.since.FromNanoseconds(newest + 1)
        return again

    def _failed(self, name: str, message: str) -> None:
        names = self._errors.setdefault(message, [])
        names.append(name)
        if len(names) == 1:
            key = ("error", message)
            self._merger.add(key)
            self._spawn(self._tell(key, message))

    async def _tell(self, key: tuple[str, str], message: str) -> None:
        """One answer for all nodes that fail alike at about the same time."""
        await asyncio.sleep(GATHER)
        names = sorted(self._errors.pop(message))
        await self._merger.put(key, time.time_ns(), self._status(relay_pb2.NODE_ERROR, names, message))
        self._merger.remove(key)

    def _status(self, state: relay_pb2.NodeState, names: list[str], message: str = "") -> bytes:
        answer = observer_pb2.GetFlowsResponse(node_name=self._host)
        answer.time.FromNanoseconds(time.time_ns())
        answer.node_status.state_change = state
        answer.node_status.node_names.extend(names)
        answer.node_status.message = message
        return answer.SerializeToString()


def _time(data: bytes) -> int:
    """When an answer is of, in nanoseconds; 0 when it does not say."""
    answer: Any = observer_pb2.GetFlowsResponse.FromString(data)
    return int(answer.time.ToNanoseconds()) if answer.HasField("time") else 0
