"""Servers and requests, on the loopback."""

from __future__ import annotations

import asyncio
import socket

import pytest

from axoneme.core.demo import traffic
from axoneme.core.demo.article import Flow
from axoneme.core.demo.traffic import Answer, Attempt, Told, request

LOOPBACK = {4: "127.0.0.1", 6: "::1"}


def attempt(port: int, family: int = 4) -> Attempt:
    made = socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, socket.SOCK_STREAM)
    made.setblocking(False)
    made.bind((LOOPBACK[family], 0))
    return Attempt(Flow("web", "db", port, family), made, (LOOPBACK[family], port))


async def serve(app: str) -> tuple[asyncio.Server, int]:
    listening = traffic._listen(0)
    port = listening.getsockname()[1]
    server = await asyncio.start_server(traffic._Server(app).answer, sock=listening)
    return server, port


@pytest.mark.parametrize("family", [4, 6])
async def test_the_answer_tells_who_answers_and_whom(family: int) -> None:
    server, port = await serve("db")
    async with server:
        assert await request(attempt(port, family)) == Told("db", port, LOOPBACK[family])


async def test_an_answer_that_tells_nothing_is_not_right() -> None:
    server, port = await serve("Somebody Else")
    async with server:
        assert await request(attempt(port)) is Answer.WRONG


async def test_nobody_listens() -> None:
    listening = traffic._listen(0)
    port = listening.getsockname()[1]
    listening.close()
    assert await request(attempt(port)) is Answer.REFUSED


async def test_who_does_not_ask_like_http_gets_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "_PATIENCE", 0.01)
    server, port = await serve("db")
    async with server:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"hello?")
        assert await reader.read() == b""
        writer.close()


def test_an_attempt_is_known_by_the_clients_address_and_port() -> None:
    made = attempt(5432)
    with made.socket:
        address, port = made.key
    assert address == "127.0.0.1"
    assert port > 0


@pytest.mark.parametrize("client", ["10.201.0.2", "fd00:201::2"])
def test_what_a_server_says_can_be_read(client: str) -> None:
    told = Told("cache", 6379, client)
    assert Told.read(str(told)) == told
    assert Told.read("hello") is None
