"""Servers and requests, on the loopback."""

from __future__ import annotations

import asyncio
import socket

import pytest

from axoneme.core.demo import traffic
from axoneme.core.demo.article import Flow
from axoneme.core.demo.traffic import Answer, Attempt, greeting, request

LOOPBACK = {4: "127.0.0.1", 6: "::1"}


def attempt(port: int, family: int = 4) -> Attempt:
    made = socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, socket.SOCK_STREAM)
    made.setblocking(False)
    made.bind((LOOPBACK[family], 0))
    return Attempt(Flow("web", "db", port, family), made, (LOOPBACK[family], port))


async def serve(text: str) -> tuple[asyncio.Server, int]:
    listening = traffic._listen(0)
    port = listening.getsockname()[1]
    server = await asyncio.start_server(traffic._Server(text.format(port=port)).answer, sock=listening)
    return server, port


@pytest.mark.parametrize("family", [4, 6])
async def test_the_right_answer_comes_back(family: int) -> None:
    server, port = await serve("db answers on port {port}")
    async with server:
        assert await request(attempt(port, family)) is Answer.RIGHT


async def test_the_answer_of_another_server_is_not_right() -> None:
    server, port = await serve("web answers on port {port}")
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


def test_an_attempt_is_known_by_its_addresses_and_ports() -> None:
    made = attempt(5432)
    with made.socket:
        address, port, target, target_port = made.key
    assert (address, target, target_port) == ("127.0.0.1", "127.0.0.1", 5432)
    assert port > 0


def test_what_a_server_says_tells_who_it_is() -> None:
    assert greeting("cache", 6379) == "cache answers on port 6379"
