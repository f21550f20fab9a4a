"""An answer waits for the kernel, and only for what the kernel has to know."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from axoneme.core import builtin
from axoneme.core.datapath import abi
from axoneme.core.datapath.maps import Map
from axoneme.core.state.table import State
from axoneme.core.testing.fake_kernel import FakeKernel
from axoneme.core.workloads.endpoints import IDENTITIES, Identity, IpcacheEntry, IpcacheSource
from axoneme.core.workloads.ipcache import Ipcache
from axoneme.core.workloads.names import DNS_NAMES, FQDN_SELECTORS, DnsName, FqdnSelector
from axoneme.plugins.dns.cache import NameCache
from axoneme.plugins.dns.journal import Journal
from axoneme.plugins.dns.learner import Learner

ADDRESS = IPv4Address("192.0.2.1")
NUMBER = 1 << 24


class Place:
    """Tables and maps in memory; nobody acts on names, unless the test does."""

    def __init__(self, folder: Path, *, delay: float = 5.0) -> None:
        self.state = State(builtin.TABLES)
        declared = abi.core_maps(connections=64, endpoints=64, ipcache=64, events=4096)
        kernel = FakeKernel()
        self.maps = {
            spec.name: Map.create(kernel, spec)
            for spec in declared
            if spec.name.startswith(("ipcache", "connections"))
        }
        context: Any = SimpleNamespace(state=self.state, map=self.maps.__getitem__)
        self.ipcache = Ipcache(self.state)
        self.cache = NameCache(min_ttl=0, names=10, addresses=10)
        self.journal = Journal(folder / "names")
        self.journal.load(self.cache, 0, 0)
        self.learner = Learner(context, self.cache, self.journal, delay=delay)
        self.state.writer(FQDN_SELECTORS.name, FqdnSelector).upsert(FqdnSelector(pattern="*.a.io"))

    def identity(self, *labels: str) -> None:
        self.state.writer(IDENTITIES.name, Identity).upsert(Identity(number=NUMBER, labels=labels))

    def enter(self, source: IpcacheSource, number: int = NUMBER) -> None:
        self.ipcache.upsert(IpcacheEntry(prefix=ip_network(ADDRESS), identity=number, source=source))

    def tell_kernel(self) -> None:
        key = {"length": 32, "address": {"a": [int(ADDRESS)]}}
        self.maps["ipcache4"].update(key, {"identity": NUMBER, "flags": 0, "node": bytes(16), "key": 0})

    @property
    def names(self) -> set[tuple[str, str]]:
        return {(row.name, str(row.address)) for row in self.state.table(DNS_NAMES.name, DnsName)}


async def test_it_waits_until_everything_is_there(tmp_path: Path) -> None:
    place = Place(tmp_path)
    steps: list[Callable[[], None]] = [
        lambda: place.identity("reserved:world-ipv4"),
        lambda: place.enter(IpcacheSource.POLICY),
        lambda: place.identity("fqdn:*.a.io", "reserved:world-ipv4"),
        place.tell_kernel,
    ]
    learning = asyncio.ensure_future(place.learner.learn("www.a.io", (ADDRESS,), 10, 1))
    for step in steps:
        await asyncio.sleep(0.005)
        assert not learning.done()
        assert place.names == {("www.a.io", "192.0.2.1")}
        step()
    await asyncio.wait_for(learning, 5)
    assert place.learner.late == 0
    await asyncio.wait_for(place.learner.learn("www.a.io", (ADDRESS,), 10, 1), 0.5)


async def test_it_does_not_wait_for_what_nobody_selects(tmp_path: Path) -> None:
    place = Place(tmp_path)
    await asyncio.wait_for(place.learner.learn("b.io", (ADDRESS,), 10, 1), 0.5)
    assert place.names == {("b.io", "192.0.2.1")}


@pytest.mark.parametrize("source", [IpcacheSource.LOCAL, IpcacheSource.HOST, IpcacheSource.CLUSTER])
async def test_it_does_not_wait_for_the_identity_of_what_is_not_the_world_s(
    tmp_path: Path, source: IpcacheSource
) -> None:
    place = Place(tmp_path)
    place.identity("fqdn:*.a.io", "reserved:world-ipv4")
    place.enter(source, number=1)
    place.enter(IpcacheSource.POLICY)
    await asyncio.wait_for(place.learner.learn("www.a.io", (ADDRESS,), 10, 1), 0.5)
    assert place.learner.late == 0


async def test_it_does_not_wait_for_ever(tmp_path: Path) -> None:
    place = Place(tmp_path, delay=0.02)
    await asyncio.wait_for(place.learner.learn("www.a.io", (ADDRESS,), 10, 1), 5)
    assert place.learner.late == 1


async def test_connections_keep_what_is_over_alive(tmp_path: Path) -> None:
    place = Place(tmp_path)
    addresses = (ADDRESS, ip_address("2001:db8::1"))
    await place.learner.learn("b.io", addresses, 0, 1)
    key = abi.TUPLE[6].pack(
        saddr={"a": [0, 0, 0, 1]},
        daddr={"a": [0x20010DB8, 0, 0, 1]},
        sport=1,
        dport=80,
        protocol=6,
        pad=(0, 0, 0),
    )
    place.maps["connections6"].update(key, bytes(place.maps["connections6"].spec.value_size))
    place.learner.expire(0)
    assert place.names == {("b.io", "2001:db8::1")}
    place.maps["connections6"].delete(key)
    place.learner.expire(0)
    assert (place.names, place.learner.forgotten) == (set(), 2)


async def test_names_of_the_run_before_and_of_the_service_before(tmp_path: Path) -> None:
    first = Place(tmp_path)
    await first.learner.learn("b.io", (ADDRESS,), 100, 1)
    again = Place(tmp_path)
    again.state.writer(DNS_NAMES.name, DnsName).upsert(DnsName(name="old.io", address=ADDRESS))
    again.learner.restore()
    assert again.names == {("b.io", "192.0.2.1")}
    again.state.writer(DNS_NAMES.name, DnsName).upsert(DnsName(name="late.io", address=ADDRESS))
    again.learner.expire(100)
    assert again.names == {("b.io", "192.0.2.1"), ("late.io", "192.0.2.1")}
    again.learner.expire(0)
    assert again.names == {("b.io", "192.0.2.1")}, "nothing stays for ever"
