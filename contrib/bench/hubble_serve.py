"""What it costs the agent to send a flow to a client, and a relay to pass one on: CPU time of their process alone.

Client and nodes are processes of their own. Nearly all of it is gRPC's: the flow itself is made in little more than a
microsecond (`hubble.read.marshal`).
"""

from __future__ import annotations

import asyncio
import multiprocessing
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import flows
from figures import Figure

from axoneme.plugins.hubble.agent_events import AgentEvents
from axoneme.plugins.hubble.cli.request import SHOWN
from axoneme.plugins.hubble.peers import Peer
from axoneme.plugins.hubble.proto.observer_pb2 import GetFlowsRequest
from axoneme.plugins.hubble.relay.config import RelaySettings
from axoneme.plugins.hubble.relay.service import Relay
from axoneme.plugins.hubble.server.listening import GrpcServer, Place
from axoneme.plugins.hubble.server.observer import SERVICE, ObserverService, Self
from axoneme.plugins.hubble.server.rpc import Room

FLOWS, NODES = 20_000, 2

_SPAWN = multiprocessing.get_context("spawn")


def figures() -> list[Figure]:
    def figure(name: str, limit: float, what: str, measure: Callable[[int], Sequence[float]]) -> Figure:
        return Figure(name=name, unit="ns", limit=limit, what=what, measure=measure)

    return [
        figure("hubble.serve", 90_000, "to send a flow to a client over the unix socket", served),
        figure(
            "hubble.serve.masked", 100_000, "the same with the fields that `hubble observe` asks for",
            lambda rounds: served(rounds, SHOWN),
        ),
        figure("hubble.relay", 250_000, "to pass a flow on from one of two nodes, in order", relayed),
    ]  # fmt: skip


def served(rounds: int, mask: Sequence[str] = ()) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_served(Path(folder, "hubble.sock"), rounds, mask))


async def _served(socket: Path, rounds: int, mask: Sequence[str]) -> list[float]:
    async with _serving(socket):
        return [await _read(f"unix:{socket}", FLOWS, mask) for _ in range(rounds)]


@asynccontextmanager
async def _serving(socket: Path) -> AsyncIterator[None]:
    observer = flows.observer(1 << 16)
    observer.take(flows.records(FLOWS))
    service = ObserverService(observer, AgentEvents("node"), Self("node", "here"))
    server = GrpcServer(Place(socket=socket), [service.handler(Room(16))], [SERVICE])
    await server.start()
    try:
        yield
    finally:
        await server.stop()


async def _read(address: str, expected: int, mask: Sequence[str] = ()) -> float:
    """ns of this process's time per flow, while another one reads all of them."""
    results = _SPAWN.Queue()
    reader = _SPAWN.Process(target=read, args=(address, list(mask), results))
    reader.start()
    while not results.qsize():  # noqa: ASYNC110 - another process is not awaited; it is there, and connected
        await asyncio.sleep(0.05)
    begin = time.process_time_ns()
    while reader.is_alive():  # noqa: ASYNC110 - as above
        await asyncio.sleep(0.02)
    spent = time.process_time_ns() - begin
    results.get()
    if (got := results.get()) < expected:
        raise RuntimeError(f"{got} flows came in place of {expected}")
    return spent / got


def read(address: str, mask: list[str], results: Any) -> None:
    """In a process of its own: asks for all flows, and says first that it is about to, then how many came."""
    import grpc

    channel = grpc.insecure_channel(address, options=[("grpc.default_authority", "localhost")])
    grpc.channel_ready_future(channel).result(timeout=30)
    request = GetFlowsRequest()
    request.field_mask.paths.extend(mask)
    results.put(0)
    time.sleep(0.2)
    results.put(sum(1 for _ in channel.unary_stream(f"/{SERVICE}/GetFlows")(request.SerializeToString())))


def relayed(rounds: int) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        sockets = [Path(folder, f"node{number}.sock") for number in range(NODES)]
        nodes = [_SPAWN.Process(target=node, args=(socket,), daemon=True) for socket in sockets]
        for process in nodes:
            process.start()
        try:
            return asyncio.run(_relayed(sockets, rounds))
        finally:
            for process in nodes:
                process.kill()


def node(socket: Path) -> None:
    """In a process of its own: a node with a full ring, until it is killed."""

    async def serve() -> None:
        async with _serving(socket):
            await asyncio.Event().wait()

    asyncio.run(serve())


async def _relayed(sockets: Sequence[Path], rounds: int) -> list[float]:
    peers = tuple(Peer(name=socket.stem, address=f"unix://{socket}") for socket in sockets)
    relay, listening = Relay(RelaySettings(listen="127.0.0.1:0", peers=peers, retry=0.2), ""), asyncio.Event()
    running = asyncio.ensure_future(relay.run(listening.set))
    try:
        await listening.wait()
        async for _ in relay.pool.changes():
            if all(node.up for node in relay.pool.nodes):
                break
        return [await _read(f"127.0.0.1:{relay.server.port}", NODES * FLOWS) for _ in range(rounds)]
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
