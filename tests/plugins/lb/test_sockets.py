"""Services at the socket: real sockets of a process in a cgroup of its own, in a network namespace of its own."""

from __future__ import annotations

import errno
import multiprocessing
import os
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attrs import define
from packet_world import words

from axoneme.core.datapath.attach import ATTACH_POINTS
from axoneme.core.datapath.cgroup import CgroupTarget
from axoneme.core.datapath.placement import cgroup_root
from axoneme.core.testing.datapath import DatapathBench
from axoneme.plugins import lb
from axoneme.plugins.lb import maps
from axoneme.plugins.lb.config import LbConfig
from axoneme.plugins.lb.maps import ServiceFlag
from axoneme.plugins.lb.namespaces import _own_cookie
from axoneme.plugins.lb.programs import stages

pytestmark = pytest.mark.kernel

VIP = {4: "10.96.0.1", 6: "fd00:96::1"}
LOCAL = {4: "127.0.0.1", 6: "::1"}
TCP, UDP = 6, 17
HOOKS = [
    f"sock_{hook}{family}" for hook in ("connect", "sendmsg", "recvmsg", "getpeername") for family in (4, 6)
]

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


# In the process with the sockets.

_held: list[socket.socket] = []


def _begin(cgroup: str) -> None:
    Path(cgroup, "cgroup.procs").write_text(str(os.getpid()))
    os.setsid()
    import ctypes

    if ctypes.CDLL(None, use_errno=True).unshare(0x40000000):
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def _listen(family: int, kind: int) -> tuple[int, int]:
    """A server: its number and its port."""
    one = socket.socket(_FAMILIES[family], kind)
    one.bind((LOCAL[family], 0))
    if kind == socket.SOCK_STREAM:
        one.listen()
    one.settimeout(3)
    _held.append(one)
    return len(_held) - 1, one.getsockname()[1]


def _connect(family: int, address: str, port: int, kind: int = socket.SOCK_STREAM) -> tuple[int, str, int]:
    """Connects and says whom it is connected to. An error is its number."""
    with socket.socket(_FAMILIES[family], kind) as one:
        one.settimeout(3)
        if error := one.connect_ex((address, port)):
            return error, "", 0
        host, at, *_ = one.getpeername()
        return 0, host, at


def _exchange(family: int, address: str, port: int, server: int, connected: bool) -> tuple[str, int, str]:
    """A datagram and its answer: where the answer seems to come from, and whom the socket is connected to."""
    with socket.socket(_FAMILIES[family], socket.SOCK_DGRAM) as one:
        one.settimeout(3)
        peer = ""
        if connected:
            one.connect((address, port))
            one.send(b"question")
            peer = one.getpeername()[0]
        else:
            one.sendto(b"question", (address, port))
        question, sender = _held[server].recvfrom(100)
        _held[server].sendto(question[::-1], sender)
        answer, (host, at, *_) = one.recvfrom(100)
        assert answer == b"noitseuq"
        return host, at, peer


def _untold(family: int, address: str, port: int) -> tuple[str, int]:
    """Whom a datagram socket is connected to, without anything sent."""
    _, host, at = _connect(family, address, port, socket.SOCK_DGRAM)
    return host, at


def _hold(family: int, address: str, port: int) -> int:
    """A connection that stays: its number."""
    one = socket.socket(_FAMILIES[family], socket.SOCK_STREAM)
    one.settimeout(3)
    one.connect((address, port))
    _held.append(one)
    return len(_held) - 1


def _peer(number: int) -> tuple[str, int]:
    host, port, *_ = _held[number].getpeername()
    return host, port


# The test's side.


@define
class Sockets:
    bench: DatapathBench
    process: ProcessPoolExecutor
    _last: int = 0

    def call(self, function: Any, *arguments: Any) -> Any:
        return self.process.submit(function, *arguments).result(timeout=20)

    def service(
        self, family: int, port: int, *backends: int, protocol: int = TCP, flags: int = 0, affinity: int = 0
    ) -> int:
        """A service at VIP:port in front of local ports; returns its number."""
        first = self._last + 1
        for number, backend in enumerate(backends, first):
            row = {"address": {"a": words(LOCAL[family])}, "port": backend, "flags": 1}
            self.bench.map(f"lb_backends{family}").update(number, row)
            self.bench.map("lb_slots").update(number, number)
            if affinity:
                self.bench.map("lb_members").update({"service": first, "backend": number}, 1)
        key = {"address": {"a": words(VIP[family])}, "port": port, "protocol": protocol, "scope": 0}
        row = {"number": first, "first": first, "count": len(backends), "flags": flags, "affinity": affinity}
        self.bench.map(f"lb_services{family}").update(key, row)
        self._last += len(backends) + 1
        return first


@pytest.fixture(scope="module")
def sockets() -> Iterator[Sockets]:
    config = LbConfig(slots=4096, backends=4096, services=1024, sockets=1024, socket_events=1)
    chosen = [("lb", stage) for stage in stages(config) if stage.name != "translate"]
    cgroup = cgroup_root() / f"axoneme-test-lb-{os.getpid()}"
    cgroup.mkdir()
    links: list[int] = []
    try:
        with DatapathBench(
            chosen, maps.specs(config.sizes), reasons=tuple(lb.axoneme_drop_reasons())
        ) as bench:
            for hook in HOOKS:
                target = CgroupTarget(path=cgroup, attach=ATTACH_POINTS[hook].attach)
                links.append(target.link(bench.kernel, bench.program(hook).fd))
            with ProcessPoolExecutor(
                1, multiprocessing.get_context("fork"), _begin, (str(cgroup),)
            ) as process:
                yield Sockets(bench, process)
    finally:
        for link in links:
            os.close(link)
        cgroup.rmdir()


@pytest.mark.parametrize("family", [4, 6])
def test_a_connection_and_whom_it_seems_to_be_with(sockets: Sockets, family: int) -> None:
    _, port = sockets.call(_listen, family, socket.SOCK_STREAM)
    number = sockets.service(family, 80, port)
    sockets.bench.ring.read()
    assert sockets.call(_connect, family, VIP[family], 80) == (0, VIP[family], 80)
    (event,) = sockets.bench.ring.read()
    assert (event["type"], event["service"], event["dport"], event["family"]) == (5, number, port, family)
    assert sockets.call(_connect, family, LOCAL[family], port) == (0, LOCAL[family], port)
    assert not len(sockets.bench.ring.read())


def test_an_ipv6_socket_that_speaks_ipv4(sockets: Sockets) -> None:
    _, port = sockets.call(_listen, 4, socket.SOCK_STREAM)
    sockets.service(4, 81, port)
    mapped = f"::ffff:{VIP[4]}"
    assert sockets.call(_connect, 6, mapped, 81) == (0, mapped, 81)


@pytest.mark.parametrize("connected", [False, True])
@pytest.mark.parametrize("family", [4, 6])
def test_datagrams(sockets: Sockets, family: int, connected: bool) -> None:
    server, port = sockets.call(_listen, family, socket.SOCK_DGRAM)
    sockets.service(family, 53, port, protocol=UDP)
    expected = (VIP[family], 53, VIP[family] if connected else "")
    assert sockets.call(_exchange, family, VIP[family], 53, server, connected) == expected


def test_datagrams_of_an_ipv6_socket_that_speaks_ipv4(sockets: Sockets) -> None:
    server, port = sockets.call(_listen, 4, socket.SOCK_DGRAM)
    sockets.service(4, 54, port, protocol=UDP)
    mapped = f"::ffff:{VIP[4]}"
    assert sockets.call(_exchange, 6, mapped, 54, server, False) == (mapped, 54, "")
    assert sockets.call(_exchange, 6, mapped, 54, server, True) == (mapped, 54, mapped)


@pytest.mark.parametrize("family", [4, 6])
def test_connected_datagrams_of_a_workload_are_left_to_the_packets(sockets: Sockets, family: int) -> None:
    _, port = sockets.call(_listen, family, socket.SOCK_DGRAM)
    sockets.service(family, 55, port, protocol=UDP)
    cookie = sockets.call(_own_cookie)
    sockets.bench.map("lb_namespaces").update(cookie, 7)
    sockets.bench.ring.read()
    try:
        if family == 6:  # this namespace has no way to VIP, and the untouched address shows it
            assert sockets.call(_connect, 6, VIP[6], 55, socket.SOCK_DGRAM)[0] == errno.ENETUNREACH
        else:
            assert sockets.call(_connect, 4, VIP[4], 55, socket.SOCK_DGRAM)[0] == errno.ENETUNREACH
        assert not len(sockets.bench.ring.read())
    finally:
        sockets.bench.map("lb_namespaces").delete(cookie)
    assert sockets.call(_untold, family, VIP[family], 55) == (VIP[family], 55)


def test_without_backends_there_is_no_way(sockets: Sockets) -> None:
    sockets.service(4, 90)
    assert sockets.call(_connect, 4, VIP[4], 90)[0] == errno.EHOSTUNREACH
    sockets.service(6, 90, protocol=UDP)
    assert sockets.call(_connect, 6, VIP[6], 90, socket.SOCK_DGRAM)[0] == errno.EHOSTUNREACH


def test_other_ports_of_a_services_address_refuse(sockets: Sockets) -> None:
    key = {"address": {"a": words(VIP[4])}, "port": 0, "protocol": 0, "scope": 0}
    sockets.bench.map("lb_services4").update(key, {"flags": int(ServiceFlag.NO_SERVICE)})
    assert sockets.call(_connect, 4, VIP[4], 9999)[0] == errno.ECONNREFUSED
    sockets.bench.map("lb_services4").delete(key)


def test_who_is_excepted_gets_the_address_itself(sockets: Sockets) -> None:
    _, port = sockets.call(_listen, 4, socket.SOCK_STREAM)
    number = sockets.service(4, 91, port, flags=ServiceFlag.SKIP_BACKENDS)
    assert sockets.call(_connect, 4, VIP[4], 91)[0] == 0
    cookie = sockets.call(_own_cookie)
    sockets.bench.map("lb_namespaces").update(cookie, 7)
    sockets.bench.map("lb_skips").update({"endpoint": 7, "service": number}, 1)
    try:
        assert sockets.call(_connect, 4, VIP[4], 91)[0] == errno.ENETUNREACH
    finally:
        sockets.bench.map("lb_namespaces").delete(cookie)


@pytest.mark.parametrize("family", [4, 6])
def test_notes_are_found_in_a_table_of_another_size(sockets: Sockets, family: int) -> None:
    """What computes their places anew knows the programs' formula: for the same size, each is where it is."""
    server, port = sockets.call(_listen, family, socket.SOCK_DGRAM)
    number = sockets.service(family, 94, port, protocol=UDP)
    for connected in (False, True):
        for _ in range(4):
            sockets.call(_exchange, family, VIP[family], 94, server, connected)
    table = sockets.bench.map(f"lb_sockets{family}")
    places, notes = table.items()
    mine = (notes["service"] == number) & (notes["cookie"] != 0)
    connected = (notes["cookie"][mine] & (len(places) - 1)) == places[mine]
    assert (connected.sum(), (~connected).sum()) == (4, 4)
    assert table.spec.moved is not None
    assert (table.spec.moved(places, notes, len(places))[mine] == places[mine]).all()
    larger = table.spec.moved(places, notes, 4 * len(places))[mine]
    assert (larger & (len(places) - 1) == places[mine]).all()
    assert (larger[connected] == notes["cookie"][mine][connected] & (4 * len(places) - 1)).all()


@pytest.mark.parametrize("family", [4, 6])
def test_a_note_of_which_a_part_is_another_ones_is_none(sockets: Sockets, family: int) -> None:
    """Two sockets may have one place, and write at one time."""
    _, port = sockets.call(_listen, family, socket.SOCK_STREAM)
    number = sockets.service(family, 95, port)
    held = sockets.call(_hold, family, VIP[family], 95)
    assert sockets.call(_peer, held) == (VIP[family], 95)
    table = sockets.bench.map(f"lb_sockets{family}")
    places, notes = table.items()
    (at,) = np.flatnonzero((notes["service"] == number) & (notes["cookie"] != 0))
    for change in ("peer_port", "peer_address"):
        torn = notes[at].copy()
        if change == "peer_port":
            torn["peer_port"] = 96
        else:
            torn["peer_address"]["a"][-1] += 1
        table.update(places[at], torn)
        assert sockets.call(_peer, held) == (LOCAL[family], port)
    table.update(places[at], notes[at])
    assert sockets.call(_peer, held) == (VIP[family], 95)


def test_a_namespace_keeps_its_backend(sockets: Sockets) -> None:
    places = [sockets.call(_listen, 4, socket.SOCK_STREAM)[1] for _ in range(3)]
    sockets.service(4, 92, *places, affinity=60)
    sockets.bench.ring.read()
    for _ in range(12):
        assert sockets.call(_connect, 4, VIP[4], 92) == (0, VIP[4], 92)
    used = Counter(int(event["dport"]) for event in sockets.bench.ring.read())
    assert len(used) == 1
    sockets.service(4, 92, *places)
    for _ in range(40):
        sockets.call(_connect, 4, VIP[4], 92)
    assert len(Counter(int(event["dport"]) for event in sockets.bench.ring.read())) == 3


def test_what_a_socket_was_told_is_found_by_its_backend(sockets: Sockets) -> None:
    """The agent finds the sockets of backends that are gone by these rows."""
    _, port = sockets.call(_listen, 4, socket.SOCK_STREAM)
    number = sockets.service(4, 93, port)
    sockets.call(_connect, 4, VIP[4], 93)
    rows = sockets.bench.map("lb_sockets4").items()[1]
    (row,) = rows[(rows["service"] == number) & (rows["cookie"] != 0)]
    assert (row["port"], row["peer_port"], row["address"]["a"][0]) == (port, 93, 0x7F000001)
