"""Server and client over a real socket."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from axoneme.core.api.client import Client, NotRunningError
from axoneme.core.api.server import Server
from axoneme.core.api.wire import MAX_REQUEST, NotFoundError, RequestError
from axoneme.core.errors import AxonemeError, ConfigError, VerifierError, Where
from axoneme.core.records import ApiMethod


def refuse() -> None:
    raise ConfigError("no", where=Where("a.yaml", 3, 5, "x.y"), hint="write yes")


def reject() -> None:
    raise VerifierError("rejected", log="all of it")


def bug() -> None:
    raise ZeroDivisionError


async def count(limit: int, fail: bool = False) -> AsyncIterator[int]:
    for number in range(limit):
        yield number
    if fail:
        raise NotFoundError("no more")


async def later(name: str, default: int = 1) -> dict[str, Any]:
    await asyncio.sleep(0)
    return {"name": name, "default": default}


METHODS = {
    method.name: method
    for method in (
        ApiMethod(name="echo", call=lambda value=None: value),
        ApiMethod(name="later", call=later),
        ApiMethod(name="count", call=count, streams=True),
        ApiMethod(name="refuse", call=refuse),
        ApiMethod(name="reject", call=reject),
        ApiMethod(name="bug", call=bug),
    )
}


@pytest.fixture
async def socket(tmp_path: Path) -> AsyncIterator[Path]:
    path = tmp_path / "s.sock"
    server = Server(path, METHODS.get)
    await server.start()
    yield path
    await server.stop()
    assert not path.exists()


async def ask(socket: Path, function: Callable[[Client], Any]) -> Any:
    """The client is synchronous, as the command line is."""

    def work() -> Any:
        with Client(socket, timeout=10) as client:
            return function(client)

    return await asyncio.to_thread(work)


async def test_answers_and_streams(socket: Path) -> None:
    assert await ask(socket, lambda c: c.call("echo", value=[1, None, {"a": "ü"}])) == [1, None, {"a": "ü"}]
    assert await ask(socket, lambda c: c.call("later", name="x")) == {"name": "x", "default": 1}
    assert await ask(socket, lambda c: list(c.stream("count", limit=3))) == [0, 1, 2]


async def test_only_root_and_the_group_may_connect(socket: Path) -> None:
    assert stat.S_IMODE(os.stat(socket).st_mode) == 0o660


async def test_errors_arrive_as_they_were_raised(socket: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        await ask(socket, lambda c: c.call("refuse"))
    assert caught.value.message == "no"
    assert caught.value.where == Where("a.yaml", 3, 5, "x.y")
    assert caught.value.hint == "write yes"
    with pytest.raises(VerifierError) as rejected:
        await ask(socket, lambda c: c.call("reject"))
    assert rejected.value.log == "all of it"
    with pytest.raises(NotFoundError, match="no more"):
        await ask(socket, lambda c: list(c.stream("count", limit=1, fail=True)))


async def test_a_bug_is_said_to_be_one(socket: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(AxonemeError, match="bug failed: ZeroDivisionError"):
        await ask(socket, lambda c: c.call("bug"))
    assert "API method failed" in caplog.messages


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("nope", {}, "the agent has no method nope"),
        ("later", {}, "missing a required argument: 'name'"),
        ("later", {"nmae": 1}, "later: "),
    ],
)
async def test_what_cannot_be_understood(
    socket: Path, method: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        await ask(socket, lambda c: c.call(method, **arguments))


@pytest.mark.parametrize("request_bytes", [b"{", b"[1]", b"\xff"])
async def test_a_request_that_is_no_json_object(socket: Path, request_bytes: bytes) -> None:
    def raw(client: Client) -> None:
        client._channel.unary_unary("/axoneme.v1.Agent/echo")(request_bytes, timeout=10)

    with pytest.raises(Exception, match="the request is not"):
        await ask(socket, raw)


async def test_a_request_that_is_too_large(socket: Path) -> None:
    with pytest.raises(AxonemeError, match="larger than max"):
        await ask(socket, lambda c: c.call("echo", value="x" * (MAX_REQUEST + 1)))


async def test_a_client_that_goes_away_ends_its_stream(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def forever() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                await asyncio.sleep(0.001)
        finally:
            ended.set()

    method = ApiMethod(name="forever", call=forever, streams=True)
    server = Server(tmp_path / "s", lambda name: method)
    await server.start()
    assert await ask(tmp_path / "s", lambda c: next(iter(c.stream("forever")))) == 1
    async with asyncio.timeout(5):
        await ended.wait()
    await server.stop()


async def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(NotRunningError, match="no agent is running"):
        await ask(tmp_path / "absent", lambda c: c.call("echo"))
    (tmp_path / "stale").touch()
    with pytest.raises(NotRunningError, match="does not answer"):
        await ask(tmp_path / "stale", lambda c: c.call("echo"))


async def test_a_socket_of_an_agent_that_died_is_replaced(tmp_path: Path) -> None:
    import socket

    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / "s"))
    dead.close()
    server = Server(tmp_path / "s", METHODS.get)
    await server.start()
    assert await ask(tmp_path / "s", lambda c: c.call("echo", value=1)) == 1
    await server.stop()


async def test_what_cannot_be_listened_on(tmp_path: Path) -> None:
    with pytest.raises(AxonemeError, match="longer than 107 bytes"):
        await Server(tmp_path / ("x" * 120), METHODS.get).start()
    with pytest.raises(ConfigError, match="there is no group"):
        await Server(tmp_path / "s", METHODS.get, group="no-such-group").start()


async def test_a_change_is_made_to_its_end_when_the_caller_goes_away(tmp_path: Path) -> None:
    begun, may, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def change() -> None:
        begun.set()
        await may.wait()
        done.set()

    server = Server(tmp_path / "s.sock", {"change": ApiMethod(name="change", call=change)}.get)
    await server.start()

    def give_up() -> None:
        with Client(server.path, timeout=0.2) as client, pytest.raises(AxonemeError):
            client.call("change")

    await asyncio.to_thread(give_up)
    assert begun.is_set()
    may.set()
    await asyncio.wait_for(done.wait(), 10)
    await server.stop()


async def test_what_is_under_way_does_not_keep_the_server_from_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("axoneme.core.api.server.GRACE", 0.05)
    server = Server(tmp_path / "s.sock", {"wait": ApiMethod(name="wait", call=asyncio.Event().wait)}.get)
    await server.start()

    def ask() -> None:
        with Client(server.path, timeout=10) as client, pytest.raises(AxonemeError):
            client.call("wait")

    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(ask))
        while not server._underway:  # noqa: ASYNC110 - it has no event for that
            await asyncio.sleep(0.01)
        await server.stop()
