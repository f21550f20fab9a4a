"""The HTTP server: what it takes, what it refuses, and that nobody can fill it up."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import re
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from axoneme.core.errors import AxonemeError, ConfigError
from axoneme.core.http import server as module
from axoneme.core.http.server import HttpServer, is_own_host
from axoneme.core.http.settings import ListenAddress, TlsSettings, parse_address


def application() -> web.Application:
    async def hello(request: web.Request) -> web.Response:
        return web.Response(text="hello\n")

    result = web.Application()
    result.router.add_get("/", hello)
    return result


@contextlib.asynccontextmanager
async def serving(
    address: str = "127.0.0.1:0", tls: TlsSettings | None = None, *, connections: int = 16
) -> AsyncIterator[HttpServer]:
    served = HttpServer(application, parse_address(address), tls, connections=connections)
    ready = asyncio.Event()
    task = asyncio.ensure_future(served.run(ready.set))
    started = asyncio.ensure_future(ready.wait())
    await asyncio.wait({task, started}, return_when=asyncio.FIRST_COMPLETED)
    started.cancel()
    try:
        if task.done():
            await task
        yield served
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, AxonemeError):
            await task


async def send(port: int, text: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text)
    answer = await reader.read()
    writer.close()
    return answer


async def get(port: int, path: str = "/", host: str = "localhost", *more: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Connection: close", *more, "", ""]
    return await send(port, "\r\n".join(lines).encode("latin-1"))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9962", ListenAddress("127.0.0.1", 9962)),
        ("[::1]:80", ListenAddress("::1", 80)),
        (":9962", ListenAddress("::", 9962)),
        ("localhost:1", ListenAddress("127.0.0.1", 1)),
    ],
)
def test_addresses(text: str, address: ListenAddress) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "9962", "example.com:80", "127.0.0.1:70000", "1.2.3:80", "[::g]:1", "127.0.0.1:-1"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigError, match="no address to listen on"):
        parse_address(text)


async def test_answers_with_headers_that_trust_nobody() -> None:
    async with serving() as served:
        answer = await get(served.port)
        missing = await get(served.port, "/none")
    assert answer.startswith(b"HTTP/1.1 200 ")
    for response in (answer, missing):
        assert b"X-Content-Type-Options: nosniff" in response
        assert b"Content-Security-Policy: default-src 'none'" in response
        assert b"Server:" not in response


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example", ""]
)
async def test_refuses_names_that_are_not_its_own(host: str) -> None:
    async with serving() as served:
        assert (await get(served.port, host=host)).startswith(b"HTTP/1.1 421 ")


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:9962", "127.0.0.1:1", "10.0.0.7", "[::1]:9962", "[fd00::1]"]
)
def test_knows_its_own_names(host: str) -> None:
    assert is_own_host(host)


@pytest.mark.parametrize(
    "request_text",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET /%2e%2e%2f%00 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 20000 + b"\r\n\r\n",
        b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n",
    ],
    ids=["no host", "dots", "encoded dots", "long header", "long path", "method", "TLS"],
)
async def test_malformed_requests_get_an_error(request_text: bytes) -> None:
    async with serving() as served:
        answer = await send(served.port, request_text)
        assert re.match(rb"HTTP/1.. 4..", answer)
        assert (await get(served.port)).startswith(b"HTTP/1.1 200 ")


async def test_connections_beyond_the_limit_are_closed() -> None:
    async with serving(connections=3) as served:
        held = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(3)]
        for _, writer in held:
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for reader, _ in held:
            assert await reader.readuntil(b"hello\n")
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        assert await reader.read() == b""
        writer.close()
        for _, writer in held:
            writer.close()


async def test_who_asks_for_nothing_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    async with serving() as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"GET / HTT")
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""


async def test_an_address_in_use_is_explained() -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    refused = pytest.raises(AxonemeError, match=r"cannot listen on 127.0.0.1:\d+: Address already in use")
    with taken, refused:
        async with serving(f"127.0.0.1:{taken.getsockname()[1]}"):
            pass


def certificate(folder: Path, name: str) -> TlsSettings:
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", f"/CN={name}", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    return TlsSettings(certificate=cert, key=key)


def common_name(port: int, context: ssl.SSLContext) -> bytes:
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context)
    connection.request("GET", "/")
    assert connection.getresponse().status == 200
    assert connection.sock.version() == "TLSv1.3"
    found: bytes = connection.sock.getpeercert(binary_form=True)
    connection.close()
    return found


async def test_tls_with_a_certificate_that_changes(tmp_path: Path) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    tls = certificate(tmp_path, "one")
    async with serving(tls=tls) as served:
        assert b"one" in await asyncio.to_thread(common_name, served.port, context)
        certificate(tmp_path, "two")
        assert b"two" in await asyncio.to_thread(common_name, served.port, context)
        pair = (tmp_path / "cert.pem").read_text()
        (tmp_path / "cert.pem").write_text("no certificate")
        assert b"two" in await asyncio.to_thread(common_name, served.port, context)
        (tmp_path / "cert.pem").write_text(pair)
        (tmp_path / "other").mkdir()
        other = certificate(tmp_path / "other", "three")
        assert other.certificate is not None
        (tmp_path / "cert.pem").write_text(
            other.certificate.read_text()
        )  # and its key follows a moment later
        assert b"two" in await asyncio.to_thread(common_name, served.port, context)


async def test_a_missing_certificate_is_explained(tmp_path: Path) -> None:
    tls = TlsSettings(certificate=tmp_path / "none.pem")
    with pytest.raises(ConfigError, match="the certificate cannot be used"):
        async with serving(tls=tls):
            pass


async def test_handshakes_that_never_end_take_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with serving(tls=certificate(tmp_path, "one"), connections=3) as served:
        held = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(3)]
        for reader, _ in held:
            assert await reader.read() == b"", "sent away"
        assert await asyncio.to_thread(common_name, served.port, context)
        for _, writer in held:
            writer.close()
