"""The plugin's server: what listens, for as long as the plugin runs."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

from axoneme.core.plugin import PluginContext
from axoneme.core.records import Health, Level
from axoneme.plugins.hubble import observer, peers
from axoneme.plugins.hubble.agent_events import AgentEvents
from axoneme.plugins.hubble.server.config import is_loopback, split
from axoneme.plugins.hubble.server.listening import GrpcServer, Place
from axoneme.plugins.hubble.server.observer import SERVICE, ObserverService, Self
from axoneme.plugins.hubble.server.rpc import Room

if TYPE_CHECKING:
    from axoneme.plugins.hubble.config import HubbleConfig

SOCKET: Final = "hubble.sock"


class Server:
    """The services of this node over gRPC, and this node among its peers."""

    def __init__(self, context: PluginContext) -> None:
        self._context = context
        self._grpc: GrpcServer | None = None
        #: The names of the peers that it entered into the table.
        self._told: set[str] = set()

    async def run(self, ready: Callable[[], None]) -> None:
        """Until cancelled."""
        context, settings = self._context, self._context.config.server
        place = Place(
            socket=socket_path(context),
            group=context.settings.agent.socket_group,
            listen=settings.listen,
            tls=settings.tls,
        )
        flows, table = observer.of(context), context.state.writer(peers.PEERS.name, peers.Peer)
        events = AgentEvents(flows.node_name)
        me = this_peer(context)
        service = ObserverService(flows, events, Self(me.name, me.address, me.server_name))
        handlers = (service.handler(Room(settings.streams)), peers.PeerService(table).handler())
        self._grpc = GrpcServer(place, handlers, (SERVICE, peers.SERVICE))
        known = [me, *context.config.peers]
        table.upsert(*known)
        self._told = {peer.name for peer in known}
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(events.run(lambda: None, context.state))
                tasks.create_task(self._grpc.serve(ready))
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            self._grpc, told, self._told = None, self._told, set()
            # Those that a newer server of this agent tells of, too, stay.
            table.delete(*told.difference(*(other._told for other in _servers.values())))

    def health(self) -> Health:
        """Certificates that cannot be used are worth knowing before the old ones expire."""
        certificates = self._grpc.certificates if self._grpc is not None else None
        if certificates is not None and certificates.problem:
            return Health(level=Level.DEGRADED, reason=certificates.problem)
        return Health(level=Level.OK)

    @property
    def port(self) -> int:
        return self._grpc.port if self._grpc is not None else 0


def socket_path(context: PluginContext) -> Path:
    return context.config.server.socket or Path(context.settings.agent.run_dir) / SOCKET


def this_peer(context: PluginContext) -> peers.Peer:
    """This node, as others reach it: by its first address, or by its socket when nothing listens beyond this machine."""
    config: HubbleConfig = context.config
    node = context.settings.node.node_name()
    name, tls = peers.peer_name(config.cluster, node), config.server.tls.certificate is not None
    certificate = peers.server_name(config.cluster, node) if tls else ""
    if not config.server.listen:
        return peers.Peer(name=name, address=f"unix://{socket_path(context)}")
    host, port = split(config.server.listen)
    if host in ("", "0.0.0.0", "::") and not is_loopback(host):  # noqa: S104 - compared, not listened on
        host = next(iter(context.settings.node.addresses), "") or _own_address()
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return peers.Peer(name=name, address=address, server_name=certificate)


def _own_address() -> str:
    """The address that this machine would use towards the world; nothing is sent to find out."""
    for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, 9))
                return str(probe.getsockname()[0])
        except OSError:
            continue
    return "127.0.0.1"


_servers: WeakValueDictionary[int, Server] = WeakValueDictionary()


def of(context: PluginContext) -> Server:
    """The one server of a plugin's context, for as long as somebody refers to it."""
    found: Any = _servers.get(id(context))
    if found is None or found._context is not context:
        found = _servers[id(context)] = Server(context)
    return found  # type: ignore[no-any-return]
