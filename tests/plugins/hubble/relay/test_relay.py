"""A relay over real nodes: order, states, nodes that come and go, TLS on both sides."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hubble_certificates import Authority
from hubble_nodes import FakeNode, FakePeers, running
from hubble_nodes import until as eventually

from axoneme.core.errors import ConfigError
from axoneme.plugins.hubble.channel import Target, Tls, open_channel
from axoneme.plugins.hubble.peers import Peer
from axoneme.plugins.hubble.proto import observer_pb2, observer_pb2_grpc, relay_pb2
from axoneme.plugins.hubble.relay import flows, pool
from axoneme.plugins.hubble.relay.cli import chosen
from axoneme.plugins.hubble.relay.config import NodeTls, RelaySettings
from axoneme.plugins.hubble.relay.service import Relay
from axoneme.plugins.hubble.server.listening import HEALTH_NAME, GrpcServer, Place

Request = observer_pb2.GetFlowsRequest


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds takes a moment."""
    monkeypatch.setattr(flows, "LOOK", 0.05)
    monkeypatch.setattr(flows, "GATHER", 0.05)
    monkeypatch.setattr(pool, "FIRST_RETRY", 0.02)
    monkeypatch.setattr(pool, "SETTLED", 0.2)


def settings(**values: Any) -> RelaySettings:
    return RelaySettings(listen="127.0.0.1:0", retry=0.05, sort_wait=0.2, **values)


@contextlib.asynccontextmanager
async def relaying(
    chosen: RelaySettings, *, up: int, tls: Tls | None = None, service: str = ""
) -> AsyncIterator[tuple[Relay, Any]]:
    """A relay that has reached so many nodes, and a stub."""
    relay = Relay(chosen, service)
    async with running(relay.run), asyncio.timeout(30):
        await until(relay, lambda: sum(node.up for node in relay.pool.nodes) >= up)
        target = Target(address=f"127.0.0.1:{relay.server.port}", tls=tls)
        async with open_channel(target, aio=True) as channel:
            yield relay, observer_pb2_grpc.ObserverStub(channel)


async def until(relay: Relay, holds: Any) -> None:
    async for _ in relay.pool.changes():
        if holds():
            return


@contextlib.asynccontextmanager
async def nodes(*made: FakeNode) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as stack:
        for node in made:
            await node.start()
            stack.push_async_callback(node.stop)
        yield


async def test_flows_of_all_nodes_in_order_behind_the_nodes_states() -> None:
    one, two = FakeNode("one", range(1, 200, 3)), FakeNode("two", range(2, 200, 3))
    gone = Peer(name="gone", address="127.0.0.1:1")
    async with nodes(one, two), relaying(settings(peers=(one.peer, two.peer, gone)), up=2) as (relay, stub):
        call = stub.GetFlows(Request(), metadata=(("x-trace", "abc"),))
        assert ("hubble-relay-version", "1.18.0") in tuple(await call.initial_metadata())
        answers = [answer async for answer in call]
        states = [(a.node_status.state_change, list(a.node_status.node_names)) for a in answers[:2]]
        assert states == [(relay_pb2.NODE_CONNECTED, ["one", "two"]), (relay_pb2.NODE_UNAVAILABLE, ["gone"])]
        assert answers[0].HasField("time")
        assert answers[0].node_name
        times = [answer.time.ToNanoseconds() for answer in answers[2:]]
        assert times == sorted([*range(1, 200, 3), *range(2, 200, 3)])
        assert one.metadata[0]["x-trace"] == "abc"
        last = [a.flow.uuid async for a in stub.GetFlows(Request(number=2)) if a.HasField("flow")]
        assert last == ["two-194", "one-196", "two-197", "one-199"]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetFlows(Request(first=True, follow=True)).read()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert len(relay.pool.nodes) == 3


async def test_what_a_relay_says_of_its_nodes() -> None:
    one, two = FakeNode("one", [1]), FakeNode("two", [1, 2, 3])
    gone = Peer(name="gone", address="127.0.0.1:1", server_name="")
    async with nodes(one, two), relaying(settings(peers=(one.peer, two.peer, gone)), up=2) as (_relay, stub):
        status = await stub.ServerStatus(observer_pb2.ServerStatusRequest())
        assert (status.num_flows, status.max_flows, status.seen_flows) == (4, 200, 8)
        assert (status.uptime_ns, status.flows_rate) == (3 * 10**9, 1.0)
        assert (status.num_connected_nodes.value, status.num_unavailable_nodes.value) == (2, 1)
        assert list(status.unavailable_nodes) == ["gone"]
        assert status.version.startswith("axoneme hubble relay v")
        listed = (await stub.GetNodes(observer_pb2.GetNodesRequest())).nodes
        assert [(node.name, node.state, node.num_flows) for node in listed] == [
            ("gone", relay_pb2.NODE_UNAVAILABLE, 0),
            ("one", relay_pb2.NODE_CONNECTED, 1),
            ("two", relay_pb2.NODE_CONNECTED, 3),
        ]
        spaces = (await stub.GetNamespaces(observer_pb2.GetNamespacesRequest())).namespaces
        assert [space.namespace for space in spaces] == ["one", "shared", "two"]
        for call in (
            stub.GetAgentEvents(observer_pb2.GetAgentEventsRequest()),
            stub.GetDebugEvents(observer_pb2.GetDebugEventsRequest()),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_followed_node_that_dies_is_told_and_goes_on_where_it_was() -> None:
    one, two = FakeNode("one", [10]), FakeNode("two", [20])
    async with nodes(one, two), relaying(settings(peers=(one.peer, two.peer)), up=2) as (relay, stub):
        call = stub.GetFlows(Request(follow=True, number=5))
        seen = [await call.read() for _ in range(3)]
        assert [answer.flow.uuid for answer in seen[1:]] == ["one-10", "two-20"]
        await one.stop()
        died = await call.read()
        assert died.node_status.state_change == relay_pb2.NODE_ERROR
        assert list(died.node_status.node_names) == ["one"]
        assert died.node_status.message
        two.add(30)
        assert (await call.read()).flow.uuid == "two-30"
        one.add(40)
        await one.start()
        assert (await call.read()).flow.uuid == "one-40"  # and not one-10 again
        assert one.requests[-1].since.ToNanoseconds() == 11
        call.cancel()
        await until(relay, lambda: all(node.up for node in relay.pool.nodes))


async def test_who_hangs_up_is_forgotten_and_who_stops_reading_holds_up_nobody_else() -> None:
    one, two = FakeNode("one", range(1, 60_000, 2)), FakeNode("two", range(2, 60_000, 2))
    async with nodes(one, two), relaying(settings(peers=(one.peer, two.peer)), up=2) as (relay, stub):
        stalled, quick = stub.GetFlows(Request(follow=True)), stub.GetFlows(Request(number=500))
        await stalled.read()
        assert len([answer async for answer in quick if answer.HasField("flow")]) == 1000
        await eventually(lambda: (one.active, two.active) == (1, 1))  # the stalled one's
        stalled.cancel()
        async with open_channel(Target(address=f"127.0.0.1:{relay.server.port}"), aio=True) as other:
            gone = observer_pb2_grpc.ObserverStub(other).GetFlows(Request(follow=True))
            await gone.read()
        await eventually(lambda: one.active == two.active == 0)


async def test_the_command_tells_what_happens_to_nodes() -> None:
    one = FakeNode("one", [1])
    gone = Peer(name="gone", address="127.0.0.1:1")
    async with nodes(one), relaying(settings(peers=(one.peer, gone)), up=1) as (relay, _stub):

        async def observe(*more: str) -> tuple[int, list[str]]:
            arguments = [
                "hubble",
                "observe",
                "--server",
                f"127.0.0.1:{relay.server.port}",
                "--last",
                "1",
                *more,
            ]
            done = await asyncio.to_thread(
                subprocess.run, [sys.executable, "-m", "axoneme.core.cli", *arguments], capture_output=True, text=True,
                env={**os.environ, "AXONEME_PLUGINS__ENABLED": "[hubble]"}, check=True, timeout=30,
            )  # fmt: skip
            return len(done.stdout.splitlines()), [
                line.partition("]: ")[2] for line in done.stderr.splitlines()
            ]

        missing = "1 nodes are unavailable: gone"
        assert await observe() == (1, [missing])
        assert await observe("-D") == (1, ["Receiving flows from 1 nodes: one", missing])
        assert await observe("-s") == (1, [])


async def test_equal_errors_are_told_once() -> None:
    made = [FakeNode(f"n{number}", [number]) for number in range(4)]
    for node in made[1:]:
        node.refuse = "no such label"
    async with (
        nodes(*made),
        relaying(settings(peers=tuple(node.peer for node in made)), up=4) as (_relay, stub),
    ):
        answers = [answer async for answer in stub.GetFlows(Request())]
        errors = [
            answer.node_status
            for answer in answers
            if answer.node_status.state_change == relay_pb2.NODE_ERROR
        ]
        assert [(list(e.node_names), e.message) for e in errors] == [
            (["n1", "n2", "n3"], "UNKNOWN: no such label")
        ]
        assert [answer.flow.uuid for answer in answers if answer.HasField("flow")] == ["n0-0"]
        following = stub.GetFlows(Request(follow=True))
        kinds = [(await following.read()).WhichOneof("response_types") for _ in range(3)]
        assert sorted(kinds) == ["flow", "node_status", "node_status"]
        asked = len(made[1].requests)
        made[0].add(50)
        await following.read()
        assert len(made[1].requests) == asked  # what a node refuses, it is not asked again
        following.cancel()


async def test_nodes_come_and_go_as_the_peer_service_says_and_stay_while_it_is_away(tmp_path: Path) -> None:
    one, two = FakeNode("one", [1]), FakeNode("two", [2])
    socket = tmp_path / "peers.sock"
    async with nodes(one, two):
        known = FakePeers(one.peer)

        def service() -> Any:
            return running(GrpcServer(Place(socket=socket), [known.handler()], ["peer.Peer"]).serve)

        async with contextlib.AsyncExitStack() as stack:
            served = await stack.enter_async_context(contextlib.AsyncExitStack())
            await served.enter_async_context(service())
            relay, stub = await stack.enter_async_context(
                relaying(settings(), up=1, service=f"unix://{socket}")
            )
            call = stub.GetFlows(Request(follow=True))
            await call.read()
            assert (await call.read()).flow.uuid == "one-1"
            known.put(two.peer)
            assert (await call.read()).flow.uuid == "two-2"  # joined silently
            known.drop("one")
            await until(relay, lambda: [node.name for node in relay.pool.nodes] == ["two"])
            assert await _health(stub, relay) == health_pb2.HealthCheckResponse.SERVING
            await served.aclose()
            await until(relay, lambda: not relay.pool.informed)
            assert [node.up for node in relay.pool.nodes] == [True]
            assert await _health(stub, relay) == health_pb2.HealthCheckResponse.NOT_SERVING
            known.peers = {"one": one.peer}
            await served.enter_async_context(service())
            await until(relay, lambda: [node.name for node in relay.pool.nodes if node.up] == ["one"])
            call.cancel()


async def _health(_stub: Any, relay: Relay) -> int:
    async with open_channel(Target(address=f"127.0.0.1:{relay.server.port}"), aio=True) as channel:
        request = health_pb2.HealthCheckRequest(service=HEALTH_NAME)
        return int((await health_pb2_grpc.HealthStub(channel).Check(request)).status)


async def test_tls_on_both_sides_and_nodes_that_speak_none_are_refused(tmp_path: Path) -> None:
    ours = Authority(tmp_path)
    name = "one.default.hubble-grpc.cilium.io"
    one = FakeNode("one", [1])
    await one.start(ours.server("one", name, clients=True))
    certificate, key = ours.issue("relay")
    plain = Peer(name="plain", address=one.peer.address)
    secure = Peer(name="one", address=one.peer.address, server_name=name)
    node_tls = NodeTls(ca=(ours.file,), certificate=certificate, key=key)
    made = settings(
        peers=(secure, plain), node_tls=node_tls, tls=ours.server("front", "localhost", clients=True)
    )
    client = Tls(ca=(ours.file,), certificate=certificate, key=key, server_name="localhost")
    try:
        async with relaying(made, up=1, tls=client) as (relay, stub):
            answers = [answer async for answer in stub.GetFlows(Request())]
            assert answers[-1].flow.uuid == "one-1"
            assert "no TLS server name" in next(
                node.problem for node in relay.pool.nodes if node.name == "plain"
            )
        others = settings(peers=(secure,), node_tls=NodeTls(ca=(Authority(tmp_path / "others").file,)))
        async with relaying(others, up=0) as (relay, stub):
            await until(relay, lambda: "CERTIFICATE_VERIFY_FAILED" in relay.pool.nodes[0].problem)
        async with relaying(settings(peers=(secure,)), up=0) as (relay, stub):
            await until(relay, lambda: "speaks no TLS" in relay.pool.nodes[0].problem)
    finally:
        await one.stop()


async def test_a_peer_service_with_tls_is_asked_by_the_name_on_its_certificate(tmp_path: Path) -> None:
    ours, one = Authority(tmp_path), FakeNode("one", [1])
    name = "node1.default.hubble-grpc.cilium.io"
    await one.start(ours.server("one", name))
    known = FakePeers(Peer(name="one", address=one.peer.address, server_name=name))
    server = GrpcServer(
        Place(listen="127.0.0.1:0", tls=ours.server("peers", name)), [known.handler()], ["peer.Peer"]
    )
    try:
        async with running(server.serve):
            made = settings(node_tls=NodeTls(ca=(ours.file,)), peer_server_name=name)
            async with relaying(made, up=1, service=f"127.0.0.1:{server.port}") as (_relay, stub):
                assert [answer.flow.uuid async for answer in stub.GetFlows(Request())][1:] == ["one-1"]
    finally:
        await one.stop()


def test_what_the_command_line_says_goes_before_the_configuration() -> None:
    assert chosen(RelaySettings()) == RelaySettings()
    made = chosen(
        RelaySettings(peer_service="a:1"), listen="127.0.0.1:9", peers=("x=10.0.0.1:4244", "y=[::1]:1")
    )
    assert made.listen == "127.0.0.1:9"
    assert [(peer.name, peer.address) for peer in made.peers] == [("x", "10.0.0.1:4244"), ("y", "[::1]:1")]
    assert chosen(RelaySettings(peers=made.peers), peer_service="b:2").peers == ()
    for values, message in (({"listen": ":4245"}, "would show all flows"), ({"peers": ("x",)}, "is no node")):
        with pytest.raises(ConfigError, match=message):
            chosen(RelaySettings(), **values)
