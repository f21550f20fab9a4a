"""Nodes for tests of what stands before them: real gRPC servers with flows that the test chooses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from axoneme.plugins.hubble.peers import Peer
from axoneme.plugins.hubble.proto import flow_pb2, observer_pb2, peer_pb2
from axoneme.plugins.hubble.server.config import ServerTls
from axoneme.plugins.hubble.server.listening import GrpcServer, Place
from axoneme.plugins.hubble.server.rpc import CallError, Method, handlers


@contextlib.asynccontextmanager
async def running(run: Callable[[Callable[[], None]], Any]) -> AsyncIterator[None]:
    """Runs a service until the block ends. What it fails with at its start is raised."""
    ready = asyncio.Event()
    task, waiting = asyncio.ensure_future(run(ready.set)), asyncio.ensure_future(ready.wait())
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if task.done():
        await task
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(holds: Callable[[], Any]) -> None:
    """Returns once it holds."""
    while not holds():  # noqa: ASYNC110 - of files and other processes nobody tells
        await asyncio.sleep(0.01)


class FakeNode:
    """A node that answers with these flows, by time, and with what is added while somebody follows."""

    def __init__(self, name: str, times: Iterable[int] = ()) -> None:
        self.name = name
        self.answers = [self.answer(time) for time in times]
        self.requests: list[observer_pb2.GetFlowsRequest] = []
        self.metadata: list[dict[str, str]] = []
        self.refuse = ""
        #: How many requests are being answered.
        self.active = 0
        self._news = asyncio.Event()
        self._server: contextlib.AsyncExitStack | None = None
        self.port = 0

    def answer(self, time: int) -> observer_pb2.GetFlowsResponse:
        made = observer_pb2.GetFlowsResponse(
            node_name=self.name, flow=flow_pb2.Flow(uuid=f"{self.name}-{time}")
        )
        made.time.FromNanoseconds(time)
        return made

    def add(self, time: int) -> None:
        self.answers.append(self.answer(time))
        self._news.set()
        self._news = asyncio.Event()

    @property
    def peer(self) -> Peer:
        return Peer(name=self.name, address=f"127.0.0.1:{self.port}")

    async def start(self, tls: ServerTls | None = None) -> None:
        pb = observer_pb2
        methods = {
            "GetFlows": Method(request=pb.GetFlowsRequest, call=self._flows, streams=True),
            "ServerStatus": Method(request=pb.ServerStatusRequest, call=self._status),
            "GetNamespaces": Method(request=pb.GetNamespacesRequest, call=self._namespaces),
        }
        place = Place(listen=f"127.0.0.1:{self.port}", tls=tls or ServerTls())
        server = GrpcServer(place, [handlers("observer.Observer", methods)], ["observer.Observer"])
        self._server = contextlib.AsyncExitStack()
        await self._server.enter_async_context(running(server.serve))
        self.port = server.port

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.aclose()
            self._server = None

    async def _flows(self, request: observer_pb2.GetFlowsRequest, context: Any) -> AsyncIterator[bytes]:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        if self.refuse:
            raise CallError("UNKNOWN", self.refuse)
        since = request.since.ToNanoseconds() if request.HasField("since") else 0
        position = max(0, len(self.answers) - request.number) if request.number and not request.first else 0
        self.active += 1
        try:
            while True:
                news = self._news
                while position < len(self.answers):
                    answer = self.answers[position]
                    position += 1
                    if answer.time.ToNanoseconds() >= since:
                        yield answer.SerializeToString()
                if not request.follow:
                    return
                await news.wait()
        finally:
            self.active -= 1

    async def _status(self, _request: Any, _context: Any) -> observer_pb2.ServerStatusResponse:
        count = len(self.answers)
        return observer_pb2.ServerStatusResponse(
            num_flows=count,
            max_flows=100,
            seen_flows=2 * count,
            uptime_ns=count * 10**9,
            flows_rate=0.5,
            version="v1",
        )

    async def _namespaces(self, _request: Any, _context: Any) -> observer_pb2.GetNamespacesResponse:
        names = [observer_pb2.Namespace(cluster="default", namespace=n) for n in ("shared", self.name)]
        return observer_pb2.GetNamespacesResponse(namespaces=names)


class FakePeers:
    """A peer service that says what the test wants."""

    def __init__(self, *peers: Peer) -> None:
        self.peers = {peer.name: peer for peer in peers}
        self.listeners: list[asyncio.Queue[peer_pb2.ChangeNotification]] = []

    def handler(self) -> Any:
        return handlers(
            "peer.Peer", {"Notify": Method(request=peer_pb2.NotifyRequest, call=self._notify, streams=True)}
        )

    def put(self, peer: Peer) -> None:
        self.peers[peer.name] = peer
        self._tell(peer, peer_pb2.PEER_ADDED)

    def drop(self, name: str) -> None:
        self._tell(self.peers.pop(name), peer_pb2.PEER_DELETED)

    def _tell(self, peer: Peer, kind: peer_pb2.ChangeNotificationType) -> None:
        for listener in self.listeners:
            listener.put_nowait(_message(peer, kind))

    async def _notify(self, _request: Any, _context: Any) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[peer_pb2.ChangeNotification] = asyncio.Queue()
        self.listeners.append(queue)
        for peer in list(self.peers.values()):
            yield _message(peer, peer_pb2.PEER_ADDED).SerializeToString()
        while True:
            yield (await queue.get()).SerializeToString()


def _message(peer: Peer, kind: peer_pb2.ChangeNotificationType) -> peer_pb2.ChangeNotification:
    message = peer_pb2.ChangeNotification(name=peer.name, address=peer.address, type=kind)
    if peer.server_name:
        message.tls.server_name = peer.server_name
    return message
