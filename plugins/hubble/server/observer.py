"""`observer.Observer`: the flows of this node, over gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

from axoneme.plugins.hubble.proto import observer_pb2
from axoneme.plugins.hubble.server import limits
from axoneme.plugins.hubble.server.rpc import CallError, Method, Room, handlers

if TYPE_CHECKING:
    from axoneme.plugins.hubble.agent_events import AgentEvents
    from axoneme.plugins.hubble.observer import Observer

SERVICE: Final = "observer.Observer"
#: The version of Hubble's API that is spoken, as clients compare it with their own.
API_VERSION: Final = "1.18.0"
CONNECTED: Final = "NODE_CONNECTED"


def program(part: str = "") -> str:
    """What answers, as people read it."""
    return f"axoneme {part} v{version('axoneme')}".replace("  ", " ")


@frozen
class Self:
    """This node as `GetNodes` shows it: the address that others reach it at, and its name on certificates (empty: no TLS)."""

    name: str
    address: str
    server_name: str = ""


class ObserverService:
    """The methods, over the node's observer."""

    def __init__(self, observer: Observer, events: AgentEvents, node: Self) -> None:
        self._observer = observer
        self._events = events
        self._node = node

    def handler(self, room: Room) -> Any:
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
        return handlers(SERVICE, methods, metadata=(("hubble-server-version", API_VERSION),), room=room)

    def get_flows(self, request: observer_pb2.GetFlowsRequest, _context: Any) -> AsyncIterator[bytes]:
        limits.check(request)
        return self._observer.get_flows(request)

    def get_agent_events(
        self, request: observer_pb2.GetAgentEventsRequest, _context: Any
    ) -> AsyncIterator[bytes]:
        return self._events.get(request)

    async def get_debug_events(self, _request: Any, _context: Any) -> AsyncIterator[bytes]:
        raise CallError("UNIMPLEMENTED", "this datapath has no debug events")
        yield b""

    async def get_nodes(self, _request: Any, _context: Any) -> observer_pb2.GetNodesResponse:
        """This node alone; a relay answers for many."""
        status = self._observer.status()
        node = observer_pb2.Node(
            name=self._node.name,
            version=program(),
            address=self._node.address,
            state=CONNECTED,
            tls=observer_pb2.TLS(enabled=bool(self._node.server_name), server_name=self._node.server_name),
            uptime_ns=status.uptime_ns,
            num_flows=status.num_flows,
            max_flows=status.max_flows,
            seen_flows=status.seen_flows,
        )
        return observer_pb2.GetNodesResponse(nodes=[node])

    async def get_namespaces(self, _request: Any, _context: Any) -> observer_pb2.GetNamespacesResponse:
        names = [observer_pb2.Namespace(cluster=c, namespace=n) for c, n in self._observer.namespaces()]
        return observer_pb2.GetNamespacesResponse(namespaces=names)

    async def server_status(self, _request: Any, _context: Any) -> observer_pb2.ServerStatusResponse:
        status = self._observer.status()
        return observer_pb2.ServerStatusResponse(
            num_flows=status.num_flows,
            max_flows=status.max_flows,
            seen_flows=status.seen_flows,
            uptime_ns=status.uptime_ns,
            flows_rate=status.flows_rate,
            version=program(),
        )
