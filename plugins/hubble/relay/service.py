"""The relay's services, and the relay as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from axoneme.plugins.hubble.proto import observer_pb2
from axoneme.plugins.hubble.relay.config import RelaySettings
from axoneme.plugins.hubble.relay.flows import FlowsCall
from axoneme.plugins.hubble.relay.pool import Node, Pool
from axoneme.plugins.hubble.server import limits
from axoneme.plugins.hubble.server.listening import GrpcServer, Place
from axoneme.plugins.hubble.server.observer import API_VERSION, SERVICE, program
from axoneme.plugins.hubble.server.rpc import CallError, Method, Room, handlers

#: Seconds that a node may take for an answer about itself.
ASK: Final = 5.0
#: How many names of unavailable nodes the status has.
NAMES: Final = 10
#: What gRPC itself adds to metadata, and what belongs to one connection only.
_OWN: Final = ("grpc-", "user-agent", ":")


class RelayService:
    """`observer.Observer` over many nodes."""

    def __init__(self, pool: Pool, settings: RelaySettings) -> None:
        self._pool = pool
        self._settings = settings

    def handler(self) -> Any:
        pb = observer_pb2
        methods = {
            "GetFlows": Method(request=pb.GetFlowsRequest, call=self.get_flows, streams=True),
            "GetAgentEvents": Method(
                request=pb.GetAgentEventsRequest, call=self.get_agent_events, streams=True
            ),
            "GetDebugEvents": Method(
                request=pb.GetDebugEventsRequest, call=self.get_debug_events, streams=True
            ),
            "GetNodes": Method(request=pb.GetNodesRequest, call=self.get_nodes),
            "GetNamespaces": Method(request=pb.GetNamespacesRequest, call=self.get_namespaces),
            "ServerStatus": Method(request=pb.ServerStatusRequest, call=self.server_status),
        }
        metadata = (("hubble-relay-version", API_VERSION),)
        return handlers(SERVICE, methods, metadata=metadata, room=Room(self._settings.streams))

    def get_flows(self, request: observer_pb2.GetFlowsRequest, context: Any) -> AsyncIterator[bytes]:
        if request.first and request.follow:
            raise CallError("INVALID_ARGUMENT", "first cannot be specified with follow")
        limits.check(request)
        size, nodes = self._settings.sort_buffer, max(1, len(self._pool.nodes))
        if request.number:
            size = max(1, min(size, request.number * nodes))
        return FlowsCall(self._pool, request, _metadata(context), size, self._settings.sort_wait).answers()

    async def get_agent_events(self, _request: Any, _context: Any) -> AsyncIterator[bytes]:
        raise CallError("UNIMPLEMENTED", "GetAgentEvents not yet implemented")
        yield b""

    async def get_debug_events(self, _request: Any, _context: Any) -> AsyncIterator[bytes]:
        raise CallError("UNIMPLEMENTED", "GetDebugEvents not yet implemented")
        yield b""

    async def get_nodes(self, _request: Any, context: Any) -> observer_pb2.GetNodesResponse:
        nodes, found = self._pool.nodes, await self._statuses(context)
        return observer_pb2.GetNodesResponse(nodes=[_node(node, found.get(node.name)) for node in nodes])

    async def get_namespaces(self, _request: Any, context: Any) -> observer_pb2.GetNamespacesResponse:
        pb = observer_pb2
        answers = await self._ask(
            "GetNamespaces", pb.GetNamespacesRequest(), pb.GetNamespacesResponse, context
        )
        names = {
            (entry.cluster, entry.namespace) for answer in answers.values() for entry in answer.namespaces
        }
        return pb.GetNamespacesResponse(
            namespaces=[pb.Namespace(cluster=c, namespace=n) for c, n in sorted(names)]
        )

    async def server_status(self, _request: Any, context: Any) -> observer_pb2.ServerStatusResponse:
        found = await self._statuses(context)
        missing = [node.name for node in self._pool.nodes if node.name not in found]
        total = observer_pb2.ServerStatusResponse(
            version=program("hubble relay"), unavailable_nodes=missing[:NAMES]
        )
        total.num_connected_nodes.value, total.num_unavailable_nodes.value = len(found), len(missing)
        for status in found.values():
            total.num_flows += status.num_flows
            total.max_flows += status.max_flows
            total.seen_flows += status.seen_flows
            total.flows_rate += status.flows_rate
            total.uptime_ns = max(total.uptime_ns, status.uptime_ns)
        return total

    async def _statuses(self, context: Any) -> dict[str, observer_pb2.ServerStatusResponse]:
        pb = observer_pb2
        return await self._ask("ServerStatus", pb.ServerStatusRequest(), pb.ServerStatusResponse, context)

    async def _ask(self, method: str, request: Any, kind: Any, context: Any) -> dict[str, Any]:
        """The answers by node, of those that gave one in time."""
        import grpc

        async def ask(node: Node) -> tuple[str, Any]:
            call = node.channel.unary_unary(
                f"/{SERVICE}/{method}",
                request_serializer=type(request).SerializeToString,
                response_deserializer=kind.FromString,
            )
            try:
                return node.name, await call(request, timeout=ASK, metadata=_metadata(context))
            except grpc.aio.AioRpcError:
                return node.name, None

        found = await asyncio.gather(*(ask(node) for node in self._pool.nodes if node.up))
        return {name: answer for name, answer in found if answer is not None}


def _metadata(context: Any) -> tuple[tuple[str, str], ...]:
    """What the client sent, for the nodes."""
    sent = context.invocation_metadata() or ()
    return tuple((key, value) for key, value in sent if not key.startswith(_OWN))


def _node(node: Node, status: observer_pb2.ServerStatusResponse | None) -> observer_pb2.Node:
    peer, state = node.peer, "NODE_UNAVAILABLE"
    shown = observer_pb2.Node(name=peer.name, address=peer.address)
    shown.tls.enabled, shown.tls.server_name = bool(peer.server_name), peer.server_name
    if status is not None:
        state = "NODE_CONNECTED"
        shown.version, shown.uptime_ns = status.version, status.uptime_ns
        shown.num_flows, shown.max_flows, shown.seen_flows = (
            status.num_flows,
            status.max_flows,
            status.seen_flows,
        )
    elif node.up:
        state = "NODE_ERROR"
    shown.state = state  # type: ignore[assignment]
    return shown


class Relay:
    """A whole relay.

    :param peer_service: the address of the agent that knows the nodes, unless the settings name them.
    """

    def __init__(self, settings: RelaySettings, peer_service: str) -> None:
        self.pool = Pool(settings, settings.peer_service or peer_service)
        service = RelayService(self.pool, settings)
        self.server = GrpcServer(
            Place(listen=settings.listen, tls=settings.tls), [service.handler()], [SERVICE]
        )

    async def run(self, ready: Callable[[], None]) -> None:
        """Until cancelled."""
        listening = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.server.serve(listening.set))
            tasks.create_task(self.pool.run())
            await listening.wait()
            ready()
            async for _ in self.pool.changes():
                await self.server.set_serving(self.pool.serving)
