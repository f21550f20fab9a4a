"""Numbers, stretches of slots, what is kept in files, connections counted, health checks."""

from __future__ import annotations

import asyncio
import json
import socket
from ipaddress import ip_address
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lb_scenes import until

from axoneme.core.datapath import abi
from axoneme.core.datapath.abi import TUPLE
from axoneme.plugins.lb import health_check
from axoneme.plugins.lb.health_check import HealthServer, Local
from axoneme.plugins.lb.loads import live_by_backend
from axoneme.plugins.lb.numbers import LimitError, Numbers, Room
from axoneme.plugins.lb.rows import backend_key
from axoneme.plugins.lb.store import BackendRecord, GivenAddresses, LocalRecord, LocalServices


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 9)), max_size=60), st.integers(0, 12))
def test_stretches_never_overlap_and_come_back_whole(steps: list[tuple[bool, int]], pick: int) -> None:
    room, held = Room(64), {}
    for take, count in steps:
        if take:
            try:
                first = room.take(count)
            except LimitError:
                free = np.ones(64 + 1, bool)
                free[-1] = False
                for start, size in held.items():
                    free[start : start + size] = False
                runs = np.diff(np.flatnonzero(~np.concatenate([[False], free])))
                assert not len(runs) or runs.max() - 1 < count, "there was a gap"
                continue
            assert all(first + count <= start or start + size <= first for start, size in held.items())
            held[first] = count
        elif held:
            first = sorted(held)[pick % len(held)]
            room.give_back(first, held.pop(first))
        assert room.used == sum(held.values())
    for first, count in held.items():
        room.give_back(first, count)
    assert room.take(64) == 0


def test_what_was_adopted_is_not_given_away() -> None:
    room = Room(16)
    room.adopt([(4, 4), (10, 2)])
    assert [room.take(4), room.take(4), room.take(2)] == [0, 12, 8]
    numbers = Numbers("services", "services", 6)
    numbers.adopt([2, 4])
    assert [numbers.take() for _ in range(3)] == [5, 1, 3]
    with pytest.raises(LimitError, match=r"more services than 5 \(raise lb.services\)"):
        numbers.take()


def test_local_services_are_kept_and_bad_ones_are_put_aside(tmp_path: Path) -> None:
    store = LocalServices(tmp_path)
    record = LocalRecord(
        name="web",
        vips=("10.96.0.1", "fd00::1"),
        port=80,
        backends=(
            BackendRecord(address="10.0.0.1", port=8080, weight=2),
            BackendRecord(address="fd00::2", port=1),
        ),
        algorithm="maglev",
        affinity=30,
    )
    made = store.add(record)
    assert made.service.cluster_ips == (ip_address("10.96.0.1"), ip_address("fd00::1"))
    assert [one.weight for one in made.slices] == [2, 1]
    assert LocalServices(tmp_path).load() == {("default", "web"): made}
    for wrong in (
        LocalRecord(name="a", port=80),
        LocalRecord(name="a", vips=("nonsense",), port=80),
        LocalRecord(name="a", vips=("127.0.0.1",), port=80),
        LocalRecord(name="a", vips=("10.0.0.1",), port=0),
        LocalRecord(name="a", vips=("10.0.0.1",), port=80, protocol="ICMP"),
        LocalRecord(name="a", vips=("10.0.0.1",), port=80, algorithm="best"),
        LocalRecord(
            name="a", vips=("10.0.0.1",), port=80, backends=(BackendRecord(address="10.0.0.1", port=0),)
        ),
    ):
        with pytest.raises(ValueError, match=r"\w"):
            store.add(wrong)
    assert store.delete(("default", "web"))
    assert not store.delete(("default", "web"))
    assert LocalServices(tmp_path).load() == {}
    store.path.write_text("{")
    assert LocalServices(tmp_path).load() == {}
    assert store.path.with_suffix(".json.bad").exists()


def test_given_addresses_are_kept(tmp_path: Path) -> None:
    given_ = {("default", "web"): (ip_address("192.0.2.1"), ip_address("2001:db8::1"))}
    GivenAddresses(tmp_path).save(given_)
    assert GivenAddresses(tmp_path).load() == given_
    assert json.loads((tmp_path / "lb-addresses.json").read_text())["version"] == 1


def test_connections_are_counted_by_where_they_lead() -> None:
    backends = [backend_key(ip_address(f"10.0.0.{n}"), 80, 6) for n in (1, 2, 3)]
    tuples = [("10.0.0.1", 80, 6, 0), ("10.0.0.1", 80, 6, 0), ("10.0.0.1", 80, 17, 0), ("10.0.0.2", 80, 6, 2), ("10.0.0.9", 80, 6, 0), ("10.0.0.2", 80, 6, 1)]  # fmt: skip
    keys = TUPLE[4].array(
        {"daddr": {"a": [int(ip_address(address))]}, "dport": port, "protocol": protocol}
        for address, port, protocol, _ in tuples
    )
    layout = {spec.name: spec for spec in abi.core_maps(connections=8, endpoints=8, ipcache=8, events=4096)}
    values = np.zeros(len(tuples), layout["connections4"].value.dtype)  # type: ignore[union-attr]
    values["flags"] = [flags for *_, flags in tuples]
    assert live_by_backend(backends, keys, values).tolist() == [2, 0, 0]


async def ask(port: int, request: bytes = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


async def test_a_health_check_port_says_whether_there_are_local_backends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health_check, "AGAIN", 0.01)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    wanted = {port: Local(("shop", "web"), {4: 2, 6: 0})}
    server, ready = HealthServer(lambda: wanted), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(server.run(ready.set))
        await ready.wait()
        head, _, body = (await ask(port)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK")
        assert json.loads(body) == {
            "service": {"namespace": "shop", "name": "web"}, "localEndpoints": 2, "serviceProxyHealthy": True,
        }  # fmt: skip
        wanted[port] = Local(("shop", "web"), {4: 0, 6: 2})
        assert (await ask(port)).startswith(b"HTTP/1.1 503 ")
        assert await ask(port, b"x" * 20_000) == b"", "no more is read of a request than there must be"
        taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        other = taken.sockets[0].getsockname()[1]
        wanted = {other: Local(("shop", "web"), {4: 1})}
        server.look()
        await until(lambda: other in server.problems)
        with pytest.raises(ConnectionRefusedError):
            await ask(port)
        taken.close()
        await taken.wait_closed()
        await until(lambda: not server.problems)
        assert (await ask(other)).startswith(b"HTTP/1.1 200 OK")
        task.cancel()
