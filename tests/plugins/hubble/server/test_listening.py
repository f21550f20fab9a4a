"""Listeners with real clients: unix socket, TCP, TLS and mTLS, health, reflection, and what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from hubble_certificates import Authority

from axoneme.core.errors import AxonemeError
from axoneme.plugins.hubble.channel import Target, Tls, open_channel
from axoneme.plugins.hubble.proto import observer_pb2, observer_pb2_grpc
from axoneme.plugins.hubble.server.config import ServerSettings, ServerTls
from axoneme.plugins.hubble.server.listening import HEALTH_NAME, GrpcServer, Place
from axoneme.plugins.hubble.server.rpc import Method, Room, handlers

SERVICE = "observer.Observer"


async def flows(request: observer_pb2.GetFlowsRequest, _context: Any) -> AsyncIterator[bytes]:
    """As many answers as were asked for, each of a kilobyte, and no end for who follows."""
    number = 0
    while number < request.number or request.follow:
        yield observer_pb2.GetFlowsResponse(node_name=f"{number:x<1000}").SerializeToString()
        number += 1
        await asyncio.sleep(0)


async def status(_request: Any, _context: Any) -> observer_pb2.ServerStatusResponse:
    return observer_pb2.ServerStatusResponse(num_flows=7)


async def fail(_request: Any, _context: Any) -> observer_pb2.GetNodesResponse:
    raise ZeroDivisionError


def service(room: int = 1000) -> Any:
    methods = {
        "GetFlows": Method(request=observer_pb2.GetFlowsRequest, call=flows, streams=True),
        "ServerStatus": Method(request=observer_pb2.ServerStatusRequest, call=status),
        "GetNodes": Method(request=observer_pb2.GetNodesRequest, call=fail),
    }
    return handlers(SERVICE, methods, metadata=(("hubble-server-version", "1.18.0"),), room=Room(room))


@contextlib.asynccontextmanager
async def serving(place: Place, *, room: int = 1000) -> AsyncIterator[GrpcServer]:
    server, ready = GrpcServer(place, [service(room)], [SERVICE]), asyncio.Event()
    task = asyncio.ensure_future(server.serve(ready.set))
    waiting = asyncio.ensure_future(ready.wait())
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if task.done():
        await task
    try:
        yield server
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def ask(target: Target) -> int:
    async with open_channel(target, aio=True) as channel:
        stub: Any = observer_pb2_grpc.ObserverStub(channel)
        answer = await stub.ServerStatus(observer_pb2.ServerStatusRequest(), timeout=10)
        return int(answer.num_flows)


def ask_blocking(target: Target) -> int:
    """As the command line does."""
    with open_channel(target) as channel:
        stub: Any = observer_pb2_grpc.ObserverStub(channel)
        return int(stub.ServerStatus(observer_pb2.ServerStatusRequest(), timeout=10).num_flows)


async def refused(target: Target) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(target)
    return caught.value.code()


async def test_the_unix_socket_is_for_root_alone_and_answers_health_and_reflection(tmp_path: Path) -> None:
    path = tmp_path / "hubble.sock"
    path.touch()
    path.unlink()
    with socket.socket(socket.AF_UNIX) as stale:  # of a server that died
        stale.bind(str(path))
    async with serving(Place(socket=path)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert path.stat().st_uid == os.geteuid()
        target = Target(address=f"unix://{path}")
        assert await ask(target) == 7
        async with open_channel(target, aio=True) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            for name in ("", HEALTH_NAME):
                answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
            with pytest.raises(
                grpc.aio.AioRpcError
            ) as caught:  # as on Cilium's server, which the command relies on
                await health.Check(health_pb2.HealthCheckRequest(service=SERVICE))
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
            for version in ("v1alpha", "v1"):
                listed = await _reflect(
                    channel, version, reflection_pb2.ServerReflectionRequest(list_services="*")
                )
                names = {entry.name for entry in listed.list_services_response.service}
                assert {SERVICE, "grpc.health.v1.Health"} <= names
                for name in names:
                    request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=name)
                    assert (
                        await _reflect(channel, version, request)
                    ).file_descriptor_response.file_descriptor_proto
    assert not path.exists()


async def _reflect(channel: Any, version: str, request: Any) -> Any:
    method = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    call = method(iter([request]))
    return await call.read()


async def test_tcp_without_tls_and_the_servers_version(tmp_path: Path) -> None:
    async with serving(Place(listen="127.0.0.1:0")) as server:
        target = Target(address=f"127.0.0.1:{server.port}")
        async with open_channel(target, aio=True) as channel:
            stub: Any = observer_pb2_grpc.ObserverStub(channel)
            call = stub.GetFlows(observer_pb2.GetFlowsRequest(number=3))
            assert ("hubble-server-version", "1.18.0") in tuple(await call.initial_metadata())
            assert [answer.node_name[:1] async for answer in call] == ["0", "1", "2"]


async def test_what_is_malformed_fails_or_is_too_much_gets_a_status(tmp_path: Path) -> None:
    async with (
        serving(Place(listen="127.0.0.1:0"), room=2) as server,
        open_channel(Target(address=f"127.0.0.1:{server.port}"), aio=True) as channel,
    ):
        raw = channel.unary_unary("/observer.Observer/ServerStatus")
        stub: Any = observer_pb2_grpc.ObserverStub(channel)

        async def code(call: Any) -> tuple[grpc.StatusCode, str]:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            return caught.value.code(), caught.value.details()

        assert await code(raw(b"\xff\xff\xff")) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "the request is no observer.ServerStatusRequest",
        )
        assert (await code(raw(b"\x0a" + b"x" * (2 << 20))))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        failed = await code(stub.GetNodes(observer_pb2.GetNodesRequest()))
        assert failed == (
            grpc.StatusCode.INTERNAL,
            "observer.Observer/GetNodes failed; see the agent's log",
        )
        assert (await code(stub.GetNamespaces(observer_pb2.GetNamespacesRequest())))[
            0
        ] is grpc.StatusCode.UNIMPLEMENTED
        following = [stub.GetFlows(observer_pb2.GetFlowsRequest(follow=True)) for _ in range(2)]
        for call in following:
            await call.read()
        crowded = stub.GetFlows(observer_pb2.GetFlowsRequest(number=1))
        assert (await code(crowded.read()))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        following.pop().cancel()
        async with asyncio.timeout(10):
            while not await _answers(stub):  # the place is free once the server noticed
                pass
        following.pop().cancel()


async def _answers(stub: Any) -> bool:
    try:
        return bool((await stub.GetFlows(observer_pb2.GetFlowsRequest(number=1)).read()).node_name)
    except grpc.aio.AioRpcError:
        return False


async def test_tls_clients_with_the_right_certificates_and_no_others(tmp_path: Path) -> None:
    ours, others = Authority(tmp_path / "ours"), Authority(tmp_path / "others")
    certificate, key = ours.issue("client")
    wrong, wrong_key = others.issue("client")
    async with serving(Place(listen="127.0.0.1:0", tls=ours.server(clients=True))) as server:
        address = f"127.0.0.1:{server.port}"
        good = Tls(ca=(ours.file,), certificate=certificate, key=key)
        assert await ask(Target(address=address, tls=good)) == 7
        assert (
            await ask(
                Target(
                    address=address,
                    tls=Tls(ca=(ours.file,), certificate=certificate, key=key, server_name="localhost"),
                )
            )
            == 7
        )
        unseen = Tls(insecure=True, certificate=certificate, key=key, server_name="localhost")
        assert await asyncio.to_thread(ask_blocking, Target(address=address, tls=unseen)) == 7
        for tls in (
            None,
            Tls(ca=(ours.file,)),
            Tls(ca=(ours.file,), certificate=wrong, key=wrong_key),
            Tls(ca=(others.file,), certificate=certificate, key=key),
            Tls(ca=(ours.file,), certificate=certificate, key=key, server_name="elsewhere"),
        ):
            assert await refused(Target(address=address, tls=tls)) is grpc.StatusCode.UNAVAILABLE
        await asyncio.to_thread(_refuses_old_tls, server.port, ours.file, certificate, key)
        assert await ask(Target(address=address, tls=good)) == 7


def _refuses_old_tls(port: int, ca: Path, certificate: Path, key: Path) -> None:
    context = ssl.create_default_context(cafile=str(ca))
    context.load_cert_chain(certificate, key)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname="localhost")
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        assert (secure.version(), secure.selected_alpn_protocol()) == ("TLSv1.3", "h2")


async def test_certificates_are_replaced_while_it_runs(tmp_path: Path) -> None:
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    tls = old.server()
    assert tls.certificate is not None
    assert tls.key is not None
    async with serving(Place(listen="127.0.0.1:0", tls=tls)) as server:
        address = f"127.0.0.1:{server.port}"
        async with open_channel(Target(address=address, tls=Tls(ca=(old.file,))), aio=True) as channel:
            stub: Any = observer_pb2_grpc.ObserverStub(channel)
            following = stub.GetFlows(observer_pb2.GetFlowsRequest(follow=True))
            assert (await following.read()).node_name
            certificate, key = new.issue("server")
            certificate.replace(tls.certificate)  # now certificate and key do not fit together
            assert await ask(Target(address=address, tls=Tls(ca=(old.file,)))) == 7
            assert server.certificates is not None
            assert "cannot be used" in server.certificates.problem
            key.replace(tls.key)
            assert await ask(Target(address=address, tls=Tls(ca=(new.file,)))) == 7
            assert server.certificates.problem == ""
            assert (
                await refused(Target(address=address, tls=Tls(ca=(old.file,)))) is grpc.StatusCode.UNAVAILABLE
            )
            assert (await following.read()).node_name  # a connection of before goes on
            following.cancel()


async def test_a_tls_client_that_stops_reading_holds_up_the_sender_and_nobody_else(tmp_path: Path) -> None:
    ours = Authority(tmp_path)
    async with serving(Place(listen="127.0.0.1:0", tls=ours.server())) as server:
        target = Target(address=f"127.0.0.1:{server.port}", tls=Tls(ca=(ours.file,)))
        async with open_channel(target, aio=True) as channel, open_channel(target, aio=True) as other:
            stalled = observer_pb2_grpc.ObserverStub(channel).GetFlows(
                observer_pb2.GetFlowsRequest(follow=True)
            )
            assert (await stalled.read()).node_name
            quick: Any = observer_pb2_grpc.ObserverStub(other)
            answers = [a async for a in quick.GetFlows(observer_pb2.GetFlowsRequest(number=5000))]
            assert len(answers) == 5000
            assert int((await stalled.read()).node_name.strip("x")) == 1
            stalled.cancel()


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (Place(listen="127.0.0.1:1"), "cannot listen"),
        (Place(socket=Path("/" + "x" * 120)), "longer than"),
        (
            Place(listen="127.0.0.1:0", tls=ServerTls(certificate=Path("/none.crt"), key=Path("/none.key"))),
            "No such file",
        ),
    ],
)
async def test_where_it_cannot_listen_is_said(place: Place, message: str) -> None:
    if place.listen.endswith(":1"):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            place = Place(listen=f"127.0.0.1:{taken.getsockname()[1]}")
            with pytest.raises(AxonemeError, match=message):
                async with serving(place):
                    pass
        return
    with pytest.raises(AxonemeError, match=message):
        async with serving(place):
            pass


def test_settings_that_would_show_flows_to_everybody_are_refused() -> None:
    for listen in ("127.0.0.1:4244", "[::1]:0", "localhost:1"):
        assert ServerSettings(listen=listen).listen == listen
    certificate = ServerTls(certificate=Path("a"), key=Path("b"))
    assert ServerSettings(listen=":4244", tls=certificate)
    assert ServerSettings(listen=":4244", plaintext=True)
    for values, message in (
        ({"listen": ":4244"}, "would show all flows"),
        ({"listen": "0.0.0.0:4244"}, "would show all flows"),
        ({"listen": "4244"}, "no address"),
        ({"listen": "::1:4244"}, "no address"),
        ({"listen": "localhost:http"}, "no address"),
    ):
        with pytest.raises(ValueError, match=message):
            ServerSettings(**values)
    with pytest.raises(ValueError, match="go together"):
        ServerTls(certificate=Path("a"))
    with pytest.raises(ValueError, match="only with a certificate"):
        ServerTls(client_ca=(Path("a"),))


async def test_noise_and_silence_on_the_ports_disturb_nobody(tmp_path: Path) -> None:
    ours = Authority(tmp_path)
    for tls in (ServerTls(), ours.server()):
        async with serving(Place(listen="127.0.0.1:0", tls=tls)) as server:
            secure = Tls(ca=(ours.file,)) if tls.certificate else None
            target = Target(address=f"127.0.0.1:{server.port}", tls=secure)
            with contextlib.ExitStack() as sockets:
                for number in range(60):
                    noise = sockets.enter_context(
                        socket.create_connection(("127.0.0.1", server.port), timeout=5)
                    )
                    if number % 3:
                        noise.sendall(
                            (b"\x00", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00" * 50)[number % 3]
                        )
                assert await ask(target) == 7
            assert await ask(target) == 7
