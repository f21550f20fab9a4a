"""The kernel's maps of endpoints and prefixes follow the tables, and the revision rises only when something was written."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any

import attrs
import pytest

from axoneme.core.datapath.abi import core_maps
from axoneme.core.datapath.endpoint_maps import EndpointOperations, IpcacheOperations, wide_bytes, words
from axoneme.core.datapath.kernel import Kernel
from axoneme.core.datapath.maps import Map
from axoneme.core.workloads.endpoints import Endpoint, EndpointState, IpcacheEntry, IpcacheSource


class Changes:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture
def maps(kernel: Kernel) -> Iterator[dict[str, Map]]:
    opened = {
        spec.name: Map.create(kernel, spec)
        for spec in core_maps(connections=64, endpoints=64, ipcache=64, events=4096)
        if spec.name.startswith(("endpoints", "links", "ipcache"))
    }
    yield opened
    for each in opened.values():
        each.close()


def endpoint(number: int, **changes: Any) -> Endpoint:
    row = Endpoint(
        id=number,
        name=f"w{number}",
        namespace="default",
        ifindex=100 + number,
        mac=f"02:00:00:00:00:{number:02x}",
        node_mac=f"06:00:00:00:00:{number:02x}",
        ipv4=ip_address(f"10.0.0.{number}"),  # type: ignore[arg-type]
        ipv6=ip_address(f"fd00::{number}"),  # type: ignore[arg-type]
        identity=256 + number,
        state=EndpointState.READY,
    )
    return attrs.evolve(row, **changes)


async def test_an_endpoint_is_found_by_link_and_by_both_addresses(maps: dict[str, Map]) -> None:
    changed = Changes()
    operations = EndpointOperations(maps.__getitem__, changed)
    await operations.update([endpoint(1)])
    for found in (
        maps["links"].lookup(101),
        maps["endpoints4"].lookup({"a": words(ip_address("10.0.0.1"))}),
        maps["endpoints6"].lookup({"a": words(ip_address("fd00::1"))}),
    ):
        assert (int(found["identity"]), int(found["id"]), int(found["ifindex"])) == (257, 1, 101)
        assert bytes(found["mac"]) == bytes([2, 0, 0, 0, 0, 1])
    assert changed.count == 1
    await operations.update([endpoint(1)])
    assert changed.count == 1, "nothing new, no new revision"


async def test_an_endpoint_that_failed_is_taken_out(maps: dict[str, Map]) -> None:
    operations = EndpointOperations(maps.__getitem__, Changes())
    await operations.update([endpoint(1)])
    await operations.update([endpoint(1, state=EndpointState.FAILED)])
    assert maps["links"].lookup(101) is None
    assert maps["endpoints4"].lookup({"a": words(ip_address("10.0.0.1"))}) is None


async def test_an_address_that_has_a_new_owner_stays_his(maps: dict[str, Map]) -> None:
    operations = EndpointOperations(maps.__getitem__, Changes())
    old, new = endpoint(1), endpoint(2, ipv4=ip_address("10.0.0.1"))
    await operations.update([old, new])
    await operations.delete([old])
    assert int(maps["endpoints4"].lookup({"a": words(ip_address("10.0.0.1"))})["id"]) == 2


async def test_prune_leaves_exactly_what_is_wanted(maps: dict[str, Map]) -> None:
    changed = Changes()
    operations = EndpointOperations(maps.__getitem__, changed)
    await operations.update([endpoint(n) for n in (1, 2, 3)])
    before = changed.count
    await operations.prune([endpoint(2), endpoint(4)])
    assert changed.count == before + 1
    assert sorted(maps["links"].items()[0].tolist()) == [102, 104]
    assert len(maps["endpoints4"].items()[0]) == len(maps["endpoints6"].items()[0]) == 2
    await operations.prune([endpoint(2), endpoint(4)])
    assert changed.count == before + 1


def prefix(text: str, identity: int) -> IpcacheEntry:
    return IpcacheEntry(prefix=ip_network(text), identity=identity, source=IpcacheSource.DEFAULT)


async def test_the_longest_prefix_says_who_it_is(maps: dict[str, Map]) -> None:
    changed = Changes()
    operations = IpcacheOperations(maps.__getitem__, changed)
    await operations.prune([prefix("0.0.0.0/0", 2), prefix("10.0.0.0/8", 300), prefix("fd00::/16", 301)])
    key = {"length": 32, "address": {"a": words(ip_address("10.1.2.3"))}}
    assert int(maps["ipcache4"].lookup(key)["identity"]) == 300
    await operations.delete([prefix("10.0.0.0/8", 300)])
    assert int(maps["ipcache4"].lookup(key)["identity"]) == 2
    assert changed.count == 2
    await operations.delete([prefix("10.0.0.0/8", 300)])
    assert changed.count == 2


def test_addresses_in_words_and_wide() -> None:
    assert words(ip_address("10.0.0.1")) == [0x0A000001]
    assert words(ip_address("fe80::1")) == [0xFE800000, 0, 0, 1]
    assert wide_bytes(ip_address("10.0.0.1")).hex() == "00000000000000000000ffff0a000001"
    assert wide_bytes(None) == bytes(16)
