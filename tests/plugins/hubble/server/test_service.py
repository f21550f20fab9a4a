"""The plugin's server in an agent, over real gRPC connections: what it answers, who is too slow, and how many may follow."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from flow_world import World, records
from hubble_certificates import Authority
from hubble_nodes import running
from hypothesis import given, settings
from hypothesis import strategies as st

from axoneme.core.errors import AxonemeError
from axoneme.core.records import Level
from axoneme.core.testing.agent import AgentKit
from axoneme.plugins import hubble
from axoneme.plugins.hubble.agent_events import AgentEvents
from axoneme.plugins.hubble.channel import Target, Tls, open_channel
from axoneme.plugins.hubble.peers import PEERS, Peer, server_name
from axoneme.plugins.hubble.proto import flow_pb2, observer_pb2, observer_pb2_grpc, peer_pb2, peer_pb2_grpc
from axoneme.plugins.hubble.server import service
from axoneme.plugins.hubble.server.limits import VALUES
from axoneme.plugins.hubble.server.listening import GrpcServer, Place
from axoneme.plugins.hubble.server.observer import SERVICE, ObserverService, Self
from axoneme.plugins.hubble.server.rpc import Room

Request = observer_pb2.GetFlowsRequest


@contextlib.asynccontextmanager
async def serving(world: World, path: Path) -> AsyncIterator[Target]:
    """The observer of a world, served on a socket."""
    answering = ObserverService(world.observer, AgentEvents("default/node1"), Self("node1", "here"))
    server = GrpcServer(Place(socket=path), [answering.handler(Room(1000))], [SERVICE])
    async with running(server.serve), asyncio.timeout(60):
        yield Target(address=f"unix://{path}")


@contextlib.asynccontextmanager
async def client(target: Target, service: Any = observer_pb2_grpc.ObserverStub) -> AsyncIterator[Any]:
    async with open_channel(target, aio=True) as channel:
        yield service(channel)


async def test_an_agent_serves_flows_events_namespaces_and_itself() -> None:
    values = {"node": {"name": "node1.example"}, "plugins": {"hubble": {"cluster": "east", "flows": 256}}}
    async with AgentKit(plugins=[hubble], values=values) as kit, asyncio.timeout(30):
        socket = kit.folder / "run" / "hubble.sock"
        target = Target(address=f"unix://{socket}")
        await kit.agent.workloads.add("web", labels={"app": "web"})
        async with client(target) as stub, client(target, peer_pb2_grpc.PeerStub) as peers:
            events = stub.GetAgentEvents(observer_pb2.GetAgentEventsRequest())
            kinds = [flow_pb2.AgentEventType.Name(event.agent_event.type) async for event in events]
            assert kinds[0] == "AGENT_STARTED"
            assert {"ENDPOINT_CREATED", "IPCACHE_UPSERTED"} <= set(kinds)
            peer = await peers.Notify(peer_pb2.NotifyRequest()).read()
            assert (peer.name, peer.address, peer.type) == (
                "east/node1.example",
                f"unix://{socket}",
                peer_pb2.PEER_ADDED,
            )
            assert not peer.HasField("tls")
            status = await stub.ServerStatus(observer_pb2.ServerStatusRequest())
            assert (status.num_flows, status.max_flows) == (0, 256)
            assert not status.HasField("num_connected_nodes")
            [node] = (await stub.GetNodes(observer_pb2.GetNodesRequest())).nodes
            assert (node.name, node.max_flows, node.tls.enabled) == ("east/node1.example", 256, False)
            assert (await stub.GetNamespaces(observer_pb2.GetNamespacesRequest())).namespaces == []
            assert [answer async for answer in stub.GetFlows(Request())] == []
        assert server_name("east", "node1.example") == "node1-example.east.hubble-grpc.cilium.io"
    assert not socket.exists()


async def test_an_agent_listens_with_tls_and_says_when_new_certificates_are_no_good(tmp_path: Path) -> None:
    ours = Authority(tmp_path)
    name = server_name("default", "node1")
    tls = ours.server("node1", name)
    files = {"certificate": str(tls.certificate), "key": str(tls.key)}
    server = {"listen": "127.0.0.1:0", "tls": files}
    values = {"node": {"name": "node1"}, "plugins": {"hubble": {"server": server}}}
    async with AgentKit(plugins=[hubble], values=values) as kit, asyncio.timeout(30):
        [served] = [server for server in service._servers.values() if server.port]
        target = Target(address=f"127.0.0.1:{served.port}", tls=Tls(ca=(ours.file,), server_name=name))
        async with client(target) as stub, client(target, peer_pb2_grpc.PeerStub) as peers:
            assert (await stub.ServerStatus(observer_pb2.ServerStatusRequest())).version.startswith(
                "axoneme v"
            )
            peer = await peers.Notify(peer_pb2.NotifyRequest()).read()
            assert (peer.name, peer.tls.server_name) == ("node1", name)
        assert served.health().level is Level.OK
        assert tls.key is not None
        tls.key.write_text("no key")
        async with client(target) as stub:
            await stub.ServerStatus(observer_pb2.ServerStatusRequest())
        assert served.health().level is Level.DEGRADED
        assert str(tls.certificate) in served.health().reason
        assert kit.agent.socket.exists()


async def test_a_follower_that_stops_reading_is_told_how_many_it_missed_and_the_others_miss_none(
    tmp_path: Path,
) -> None:
    world, total = World(flows=1024, policy_verdicts=False), 24_000
    # A connection holds what its window allows: gRPC would enlarge that to megabytes.
    options = [("grpc.http2.bdp_probe", 0), ("grpc.default_authority", "localhost")]
    async with (
        serving(world, tmp_path / "s") as target,
        grpc.aio.insecure_channel(target.address, options=options) as narrow,
        client(target) as quick,
    ):
        world.observer.take(records(1))
        slow: Any = observer_pb2_grpc.ObserverStub(narrow)
        stalled, reading = slow.GetFlows(Request(follow=True)), quick.GetFlows(Request(follow=True))
        await stalled.read()
        await reading.read()
        seen = 0
        for _ in range(total // 500):
            world.observer.take(records(500))
            for _ in range(500):
                assert (await reading.read()).HasField("flow")
                seen += 1
        assert seen == total
        # Whatever was on its way to it, then what was lost, then all that is still in the ring.
        got, lost, before = 0, 0, 0
        while got + lost < total:
            answer = await stalled.read()
            if answer.HasField("lost_events"):
                assert answer.lost_events.source == flow_pb2.HUBBLE_RING_BUFFER
                before = before or got
                lost += answer.lost_events.num_events_lost
            else:
                got += 1
        assert got + lost == total
        assert lost > total / 2
        assert before < 1000  # nothing was kept for it but what the connection holds
        stalled.cancel()
        reading.cancel()


async def test_two_hundred_followers_get_every_flow(tmp_path: Path) -> None:
    world, followers, flows = World(flows=4096, policy_verdicts=False), 200, 20
    async with serving(world, tmp_path / "s") as target, contextlib.AsyncExitStack() as stack:
        stubs = [await stack.enter_async_context(client(target)) for _ in range(4)]
        world.observer.take(records(1))
        wanted = [["8080"], ["9"], []]
        calls = []
        for number in range(followers):
            request = Request(follow=True)
            if ports := wanted[number % 3]:
                request.whitelist.add().destination_port.extend(ports)
            calls.append(stubs[number % 4].GetFlows(request))
        # Those whose filter lets the first flow pass have it; the others follow, too, once they answer to metadata.
        await asyncio.gather(*(call.initial_metadata() for call in calls))
        await asyncio.gather(*(call.read() for number, call in enumerate(calls) if number % 3 != 1))
        for _ in range(flows // 4):
            world.observer.take(records(4))
            await asyncio.sleep(0)
        for number, call in enumerate(calls):
            if number % 3 != 1:
                answers = [await call.read() for _ in range(flows)]
                assert all(answer.HasField("flow") for answer in answers)
        world.observer.take(records(1, dport=9))
        for number, call in enumerate(calls):
            if number % 3 == 1:
                assert (await call.read()).flow.l4.TCP.destination_port == 9
            call.cancel()


def wide(values: int) -> Request:
    return Request(
        whitelist=[flow_pb2.FlowFilter(source_label=[f"app=x{number}" for number in range(values)])]
    )


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (wide(VALUES), "INVALID_ARGUMENT", "at most 1000 are evaluated"),
        (
            Request(blacklist=[flow_pb2.FlowFilter()] * (VALUES + 1)),
            "INVALID_ARGUMENT",
            "at most 1000 are evaluated",
        ),
        (
            Request(whitelist=[{"http_path": ["a" * 5000], "event_type": [{"type": 129}]}]),
            "INVALID_ARGUMENT",
            "5000 characters",
        ),  # type: ignore[list-item]
        (Request(first=True, follow=True), "INVALID_ARGUMENT", "first cannot be specified with follow"),
        (
            Request(whitelist=[flow_pb2.FlowFilter(source_ip=["nonsense"])]),
            "UNKNOWN",
            "invalid source ip filter",
        ),
        (Request(field_mask={"paths": ["nonsense"]}), "UNKNOWN", "invalid fieldmask"),
        (Request(field_mask={"paths": ["time"] * 300}), "INVALID_ARGUMENT", "at most 256 are taken"),
    ],
)
async def test_what_is_too_much_or_wrong_is_refused(
    request_: Request, code: str, message: str, tmp_path: Path
) -> None:
    world = World(flows=256)
    async with serving(world, tmp_path / "s") as target, client(target) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetFlows(request_).read()
        assert (caught.value.code().name, message in caught.value.details()) == (code, True)


async def test_a_regular_expression_that_would_explode_elsewhere_does_not(tmp_path: Path) -> None:
    world = World(flows=4096)
    world.observer.add(
        [flow_pb2.Flow(event_type={"type": 129}, l7={"http": {"url": f"http://x/{'a' * 2000}!"}})] * 500
    )
    nasty = flow_pb2.FlowFilter(http_path=["(a*)*(a|aa)*$"], event_type=[flow_pb2.EventTypeFilter(type=129)])
    async with serving(world, tmp_path / "s") as target, client(target) as stub:
        assert len([answer async for answer in stub.GetFlows(Request(whitelist=[nasty]))]) == 500


async def asked(target: Target) -> int:
    """How large the ring of whoever answers is."""
    async with client(target) as stub:
        return int((await stub.ServerStatus(observer_pb2.ServerStatusRequest(), timeout=10)).max_flows)


async def test_a_changed_configuration_takes_the_addresses_over_and_one_that_fails_leaves_them(
    tmp_path: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    def values(flows: int, **server: Any) -> dict[str, Any]:
        given = {"flows": flows, "server": {"listen": f"127.0.0.1:{port}", **server}}
        return {"node": {"name": "node1"}, "plugins": {"hubble": given}}

    ours = Authority(tmp_path)
    async with AgentKit(plugins=[hubble], values=values(256)) as kit, asyncio.timeout(60):
        unix = Target(address=f"unix://{kit.folder / 'run' / 'hubble.sock'}")
        tcp = Target(address=f"127.0.0.1:{port}")
        assert (await asked(unix), await asked(tcp)) == (256, 256)
        kit.configure(values(512))
        await kit.agent.reload()
        assert (await asked(unix), await asked(tcp)) == (512, 512)
        rows = kit.agent.state.table(PEERS.name, Peer).all()
        assert [(row.name, row.address) for row in rows] == [("node1", f"127.0.0.1:{port}")]
        broken = {"certificate": "/none.crt", "key": "/none.key"}
        kit.configure(values(1024, tls=broken))
        with pytest.raises(AxonemeError, match=r"none\.crt"):
            await kit.agent.reload()
        assert (await asked(unix), await asked(tcp)) == (512, 512)
        tls = ours.server("server", "localhost")
        kit.configure(values(1024, tls={"certificate": str(tls.certificate), "key": str(tls.key)}))
        await kit.agent.reload()
        secure = Target(address=f"localhost:{port}", tls=Tls(ca=(ours.file,)))
        assert (await asked(unix), await asked(secure)) == (1024, 1024)
        assert [row.server_name for row in kit.agent.state.table(PEERS.name, Peer)] == [
            server_name("default", "node1")
        ]
        assert (
            sorted(path.name for path in (kit.folder / "run").iterdir() if "hubble" in path.name)[-1]
            == "hubble.sock"
        )
        folder = kit.folder / "run"
    assert not folder.exists() or [path for path in folder.iterdir() if "hubble" in path.name] == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=4), st.integers(0, 4))
def test_bytes_that_are_no_request_are_answered_with_a_status(pieces: list[bytes], which: int) -> None:
    """Random bytes, and random bytes as the whitelist of a request that is otherwise one."""
    method = ("GetFlows", "GetAgentEvents", "ServerStatus", "GetNodes", "GetNamespaces")[which]
    allowed = {"OK", "INVALID_ARGUMENT", "UNKNOWN"}
    assert set(_FUZZED.run(method, pieces)) <= allowed


class _Fuzzed:
    """A server in a loop of its own, for tests that are not coroutines."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stack = contextlib.AsyncExitStack()
        self._channel: Any = None

    def run(self, method: str, pieces: list[bytes]) -> list[str]:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._loop.run_until_complete(self._start())
        return self._loop.run_until_complete(self._ask(method, pieces))

    async def _start(self) -> None:
        world = World(flows=256)
        world.observer.take(records(20))
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        answering = ObserverService(world.observer, AgentEvents("n"), Self("n", "here"))
        server = GrpcServer(Place(socket=folder / "s"), [answering.handler(Room(100))], [SERVICE])
        await server.start()
        self._stack.push_async_callback(server.stop)
        target = Target(address=f"unix://{folder / 's'}")
        self._channel = await self._stack.enter_async_context(open_channel(target, aio=True))

    async def _ask(self, method: str, pieces: list[bytes]) -> list[str]:
        return [
            await self._one(method, data)
            for piece in pieces
            for data in (piece, b"\x32" + bytes([len(piece)]) + piece)
        ]

    async def _one(self, method: str, data: bytes) -> str:
        streams = method in ("GetFlows", "GetAgentEvents")
        make = self._channel.unary_stream if streams else self._channel.unary_unary
        call = make(f"/{SERVICE}/{method}")(data, timeout=10)
        try:
            if streams:
                await call.read()
                call.cancel()
            else:
                await call
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"

    def close(self) -> None:
        if self._loop is not None:
            self._loop.run_until_complete(self._stack.aclose())
            self._loop.close()


_FUZZED = _Fuzzed()


@pytest.fixture(autouse=True, scope="module")
def fuzzed() -> Iterator[None]:
    yield
    _FUZZED.close()
