from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from axoneme.core.systemd import Notifier


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.settimeout(5)
        yield channel


def heard(listener: socket.socket) -> dict[str, str]:
    return dict(line.split("=", 1) for line in listener.recv(4096).decode().splitlines())


def test_each_state_is_told(listener: socket.socket, tmp_path: Path) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
    notifier.ready("ok; 3 workloads")
    assert heard(listener) == {"READY": "1", "STATUS": "ok; 3 workloads"}
    notifier.reloading()
    reloading = heard(listener)
    assert reloading["RELOADING"] == "1"
    assert int(reloading["MONOTONIC_USEC"]) > 0
    notifier.stopping()
    assert heard(listener)["STOPPING"] == "1"
    notifier.status("two\nlines")
    assert heard(listener) == {"STATUS": "two lines"}
    notifier.alive()
    assert heard(listener) == {"WATCHDOG": "1"}


def test_an_abstract_socket() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(f"\0axoneme-test-{os.getpid()}")
        channel.settimeout(5)
        Notifier({"NOTIFY_SOCKET": f"@axoneme-test-{os.getpid()}"}).alive()
        assert channel.recv(100) == b"WATCHDOG=1"


def test_without_a_listener_nothing_happens(tmp_path: Path) -> None:
    Notifier({}).ready()
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "4000000"}, 2.0),
        ({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": str(os.getpid())}, 2.0),
        ({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_wants_a_sign_twice_in_its_time(environ: dict[str, str], interval: float | None) -> None:
    assert Notifier(environ).interval == interval
