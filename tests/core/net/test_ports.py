"""Ports that servers share with those that replace them, and with nobody else."""

from __future__ import annotations

import socket

import pytest

from axoneme.core.net import ports


@pytest.fixture
def free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def test_a_server_and_its_successor_listen_at_once(free: int) -> None:
    with ports.held("metrics", "127.0.0.1", free), ports.bind("127.0.0.1", free) as old:
        with ports.held("metrics", "127.0.0.1", free), ports.bind("127.0.0.1", free) as new:
            old.close()
            with socket.create_connection(("127.0.0.1", free), timeout=5):
                new.accept()[0].close()
        with pytest.raises(OSError, match="already in use"), ports.held("ui", "127.0.0.1", free):
            pass
    with ports.held("ui", "127.0.0.1", free):
        pass


def test_a_port_of_another_program_is_in_use(free: int) -> None:
    foreign = ports.bind("127.0.0.1", free)  # of somebody who shares it, but is none of ours
    with foreign, pytest.raises(OSError, match="already in use"), ports.held("metrics", "127.0.0.1", free):
        pass
    with ports.held("metrics", "127.0.0.1", free):
        pass


def test_all_addresses_are_those_of_both_families(free: int) -> None:
    for host in ("", "::"):
        with ports.held("metrics", host, free), ports.bind(host, free):
            for address in ("127.0.0.1", "::1"):
                socket.create_connection((address, free), timeout=5).close()


def test_any_free_port_needs_no_holding() -> None:
    with (
        ports.held("a", "127.0.0.1", 0),
        ports.held("b", "127.0.0.1", 0),
        ports.bind("127.0.0.1", 0) as bound,
    ):
        assert bound.getsockname()[1]
