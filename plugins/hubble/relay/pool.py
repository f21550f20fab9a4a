"""The relay's nodes: who they are, as the peer service says, and a connection to each that is made again when it breaks."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from axoneme.core import logs
from axoneme.core.errors import AxonemeError
from axoneme.plugins.hubble.channel import DEFAULT_PORT, Target, Tls, open_channel, split_address
from axoneme.plugins.hubble.peers import DOMAIN, Peer
from axoneme.plugins.hubble.proto import peer_pb2
from axoneme.plugins.hubble.relay.config import NodeTls, RelaySettings

_log = logs.get(__name__)

#: Seconds before the first further attempt to connect; each next one waits longer.
FIRST_RETRY: Final = 0.5
#: Seconds of silence after which the peer service is taken to have named all nodes.
SETTLED: Final = 5.0


def node_target(peer: Peer, tls: NodeTls) -> Target:
    """How to reach a node. Raises `AxonemeError` when the relay and the node do not agree about TLS."""
    if peer.address.startswith("unix:"):
        return Target(address=peer.address)
    if tls.ca and not peer.server_name:
        raise AxonemeError(f"{peer.name} has no TLS server name, and this relay speaks only TLS to nodes")
    if peer.server_name and not tls.ca:
        raise AxonemeError(
            f"unexpected TLS server name of {peer.name}: this relay speaks no TLS",
            hint="set relay.node_tls.ca",
        )
    host, port = split_address(peer.address, DEFAULT_PORT)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if not tls.ca:
        return Target(address=address)
    secure = Tls(ca=tls.ca, certificate=tls.certificate, key=tls.key, server_name=peer.server_name)
    return Target(address=address, tls=secure)


class Node:
    """One node and the connection to it.

    :ivar up: whether calls can be made now.
    :ivar problem: why not, or an empty text.
    """

    def __init__(self, peer: Peer, settings: RelaySettings, changed: Callable[[], None]) -> None:
        self.peer = peer
        self.up = False
        self.problem = "not connected yet"
        self._settings = settings
        self._changed = changed
        self._channel: Any = None

    @property
    def name(self) -> str:
        return self.peer.name

    @property
    def channel(self) -> Any:
        return self._channel

    async def run(self) -> None:
        """Keeps the connection up until cancelled. Each attempt reads the certificates anew."""
        delays = backoff(self._settings.retry)
        while True:
            try:
                target = node_target(self.peer, self._settings.node_tls)
                async with open_channel(target, aio=True) as self._channel:
                    if await self._connect():
                        delays = backoff(self._settings.retry)
                        await self._stay()
                    self._set(False, "the connection broke" if self.up else await self._why())
            except AxonemeError as error:
                self._set(False, str(error))
            except Exception as error:  # noqa: BLE001 - the other nodes must not go with it
                _log.error("a node's connection failed", node=self.name, error=error)
                self._set(False, logs.describe(error))
            await asyncio.sleep(next(delays))

    async def _connect(self) -> bool:
        import grpc

        ready, failed = grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE
        state = self._channel.get_state(try_to_connect=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                while state not in (ready, failed):
                    await self._channel.wait_for_state_change(state)
                    state = self._channel.get_state(try_to_connect=True)
        return bool(state == ready)

    async def _why(self) -> str:
        """The reason for which there is no connection: only a call gets to hear it."""
        import grpc

        try:
            await self._channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=2)
        except grpc.aio.AioRpcError as error:
            return f"cannot connect: {(error.details() or error.code().name)[:300]}"
        return "cannot connect"

    async def _stay(self) -> None:
        import grpc

        self._set(True, "")
        await self._channel.wait_for_state_change(grpc.ChannelConnectivity.READY)

    def _set(self, up: bool, problem: str) -> None:
        if up != self.up or problem != self.problem:
            _log.info("node connected" if up else "node unavailable", node=self.name, reason=problem)
        self.up, self.problem = up, problem
        self._changed()


def backoff(longest: float) -> Any:
    """Seconds to wait, doubled each time up to the longest, each shortened by chance."""
    delay = FIRST_RETRY
    while True:
        yield min(delay, longest) * random.uniform(0.5, 1)  # noqa: S311 - not a secret
        delay = min(delay * 2, longest)


class Pool:
    """All nodes."""

    def __init__(self, settings: RelaySettings, peer_service: str) -> None:
        self._settings = settings
        self._service = peer_service
        self._nodes: dict[str, tuple[Node, asyncio.Task[None]]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._change = asyncio.Event()
        self._complained = ""
        #: Whether it is known which nodes there are.
        self.informed = bool(settings.peers)

    @property
    def nodes(self) -> list[Node]:
        return sorted((node for node, _ in self._nodes.values()), key=lambda node: node.name)

    @property
    def serving(self) -> bool:
        return self.informed and any(node.up for node in self.nodes)

    async def changes(self) -> AsyncIterator[None]:
        """One step now, and one whenever something changed since."""
        while True:
            change = self._change
            yield
            await change.wait()

    def _changed(self) -> None:
        self._change.set()
        self._change = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as self._group:
            for peer in self._settings.peers:
                self.put(peer)
            if not self._settings.peers:
                await self._follow()

    def put(self, peer: Peer) -> None:
        """A node that is there, at this address."""
        known = self._nodes.get(peer.name)
        if known is not None and known[0].peer == peer:
            return
        self.drop(peer.name)
        assert self._group is not None
        node = Node(peer, self._settings, self._changed)
        self._nodes[peer.name] = (node, self._group.create_task(node.run()))
        self._changed()

    def drop(self, name: str) -> None:
        known = self._nodes.pop(name, None)
        if known is not None:
            known[0].up = False
            known[1].cancel()
            self._changed()

    async def _follow(self) -> None:
        """Listens to the peer service, again and again. What is known stays while it does not answer."""
        delays = backoff(self._settings.retry)
        while True:
            try:
                async with open_channel(self._service_target(), aio=True) as channel:
                    if await self._listen(channel):
                        delays = backoff(self._settings.retry)
            except AxonemeError as error:
                self._complain(str(error))
            self.informed = False
            self._changed()
            await asyncio.sleep(next(delays))

    def _complain(self, reason: str) -> None:
        """Once, until it answers again or the reason is another one."""
        if reason != self._complained:
            _log.warning("the peer service does not answer", address=self._service, reason=reason)
        self._complained = reason

    def _service_target(self) -> Target:
        tls = self._settings.node_tls
        if self._service.startswith("unix:") or not tls.ca:
            return Target(address=self._service)
        host, _ = split_address(self._service)
        named = self._settings.peer_server_name or any(char.isalpha() for char in host.partition(":")[0])
        name = self._settings.peer_server_name if named else f"hubble-peer.default.{DOMAIN}"
        return Target(
            address=self._service,
            tls=Tls(ca=tls.ca, certificate=tls.certificate, key=tls.key, server_name=name),
        )

    async def _listen(self, channel: Any) -> bool:
        """Until the stream breaks; returns whether there was one.

        A new stream begins with all nodes that are there. Its end is not marked: who was not named when it has been
        silent for a while is gone.
        """
        import grpc

        notify = channel.unary_stream(
            "/peer.Peer/Notify",
            request_serializer=peer_pb2.NotifyRequest.SerializeToString,
            response_deserializer=peer_pb2.ChangeNotification.FromString,
        )
        named: set[str] = set()
        call = notify(peer_pb2.NotifyRequest())
        try:
            async for change in _until_silent(call, SETTLED):
                if change is None:
                    for name in self._nodes.keys() - named:
                        self.drop(name)
                    continue
                self._apply(change, named)
        except grpc.aio.AioRpcError as error:
            self._complain(error.code().name)
        finally:
            call.cancel()
        return bool(named)

    def _apply(self, change: peer_pb2.ChangeNotification, named: set[str]) -> None:
        if change.type == peer_pb2.PEER_DELETED:
            named.discard(change.name)
            self.drop(change.name)
            return
        self._complained = ""
        named.add(change.name)
        self.put(Peer(name=change.name, address=change.address, server_name=change.tls.server_name))
        self.informed = True
        self._changed()


async def _until_silent(call: Any, seconds: float) -> AsyncIterator[Any]:
    """The messages of a call, and one None after the first silence."""
    reading = asyncio.ensure_future(call.read())
    silent = False
    try:
        while True:
            done, _ = await asyncio.wait([reading], timeout=None if silent else seconds)
            if not done:
                silent = True
                yield None
                continue
            message = reading.result()
            if not message:  # EOF
                return
            yield message
            reading = asyncio.ensure_future(call.read())
    finally:
        reading.cancel()
