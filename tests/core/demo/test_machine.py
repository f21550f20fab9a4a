"""The machine of a demo: there while it is used, gone afterwards, and nothing of the real one."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from axoneme.core.demo import machine
from axoneme.core.demo.page import Page
from axoneme.core.net import namespaces
from axoneme.core.net.namespaces import host_identity
from axoneme.core.testing.namespaces import ping, unique

pytestmark = pytest.mark.kernel


@pytest.fixture
def name() -> Iterator[str]:
    made = unique("demo-")
    yield made
    machine.remove(made)


def test_this_thread_is_on_it_meanwhile(name: str) -> None:
    before = host_identity()
    with machine.made(name) as made:
        assert host_identity() != before
        assert made.home.identity == before
        assert {device for _, device in socket.if_nameindex()} >= {"lo", machine.UPLINK}
        assert all(ping(made.outside, str(address)) for address in machine.NODE.values())
    assert host_identity() == before
    assert not set(machine.names(name)) & set(namespaces.names())


def test_sockets_that_are_made_in_the_cgroup_are_and_the_process_comes_back(name: str) -> None:
    with machine.made(name) as made:
        assert made.cgroup is not None
        with open("/proc/self/cgroup") as file:
            before = file.read()
        with made.in_cgroup():
            assert str(os.getpid()) in (made.cgroup / "cgroup.procs").read_text().split()
        with open("/proc/self/cgroup") as file:
            assert file.read() == before
    assert not made.cgroup.exists()


def test_without_one_nothing_moves(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_make_cgroup", lambda name: None)
    with machine.made(name) as made, made.in_cgroup():
        assert made.cgroup is None


def test_what_fails_underway_leaves_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(outside: str) -> None:
        raise OSError("no cable")

    before = host_identity()
    monkeypatch.setattr(machine, "_connect", fail)
    with pytest.raises(OSError, match="no cable"), machine.made(name):
        pass
    assert host_identity() == before
    assert not set(machine.names(name)) & set(namespaces.names())


async def test_the_page_is_passed_on_from_the_machine_to_here(name: str) -> None:
    import asyncio

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"you said " + await reader.readline())
        writer.close()

    def ask(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(b"hello\n")
            return client.recv(100)

    with machine.made(name) as made, Page(made.home) as page:
        async with page.open(), await asyncio.start_server(answer, "127.0.0.1", page.port):
            said = await asyncio.to_thread(made.home.visit, lambda: ask(page.port))
        assert said == b"you said hello\n"
