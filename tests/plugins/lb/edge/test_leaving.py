"""The addresses under which workloads leave, and what the status says of it."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import numpy as np
import pytest
from lb_scenes import kit

from axoneme.core.net.devices import Device
from axoneme.core.records import Level
from axoneme.core.testing.agent import FakePlatform
from axoneme.plugins.lb.leaving import NO_PORT, WINDOW, Refused, addresses_of, of


def device(ifindex: int, *addresses: str) -> Device:
    return Device(
        ifindex=ifindex, name=f"eth{ifindex}", used=True, why="", addresses=tuple(map(ip_address, addresses))
    )


def test_each_device_has_its_best_address_of_a_family() -> None:
    rows = [device(2, "198.51.100.2", "198.51.100.3", "2001:db8::2"), device(3, "192.0.2.2")]
    assert addresses_of(rows, {}, 4) == {2: ip_address("198.51.100.2"), 3: ip_address("192.0.2.2")}
    assert addresses_of(rows, {}, 6) == {2: ip_address("2001:db8::2")}


def test_an_address_that_connections_have_is_kept_as_long_as_it_is_there() -> None:
    rows = [device(2, "198.51.100.2", "198.51.100.3")]
    kept = {2: ip_address("198.51.100.3"), 3: ip_address("192.0.2.2")}
    assert addresses_of(rows, kept, 4) == {2: ip_address("198.51.100.3")}
    assert addresses_of(rows, {2: ip_address("198.51.100.9")}, 4) == {2: ip_address("198.51.100.2")}


class Counters:
    """The programs' counters, per CPU."""

    def __init__(self) -> None:
        self.packets = 0

    def lookup(self, index: int) -> Any:
        assert index // 2 == NO_PORT
        return np.array([(self.packets, 0), (0, 0)], [("packets", "u8"), ("bytes", "u8")])


def test_refusals_are_recent_for_a_while() -> None:
    now, counters = [0.0], Counters()
    counters.packets = 100
    refused = Refused(lambda: now[0])
    assert refused.recent(counters) == 0, "what was before the agent started"  # type: ignore[arg-type]
    counters.packets += 3
    assert refused.recent(counters) == 6, "both directions"  # type: ignore[arg-type]
    now[0] = WINDOW
    assert refused.recent(counters) == 6  # type: ignore[arg-type]
    now[0] = 2 * WINDOW
    assert refused.recent(counters) == 0  # type: ignore[arg-type]


async def test_without_devices_the_status_says_so_and_is_well() -> None:
    async with kit() as agent:
        health = of(agent.agent.context("lb")).health()
        assert health.level is Level.OK
        assert "no device" in health.reason


async def test_a_device_without_an_address_to_leave_by() -> None:
    platform = FakePlatform()
    platform.devices = (device(2, "198.51.100.2", "2001:db8::2"), device(3))
    async with kit(platform=platform) as agent:
        health = of(agent.agent.context("lb")).health()
        assert (health.level, health.reason) == (Level.DEGRADED, "no address to leave by: eth3")
        for family, words in ((4, [0xC6336402]), (6, [0x20010DB8, 0, 0, 2])):
            keys, values = agent.agent.datapath.map(f"lb_addresses{family}").items()
            assert (keys.tolist(), values["a"].tolist()) == ([2], [words])


async def test_the_pools_are_reached_as_who_one_is() -> None:
    async with kit(native=["192.0.2.0/24"]) as agent:
        keys, _ = agent.agent.datapath.map("lb_native4").items()
        assert sorted(int(key["length"]) for key in keys) == [16, 24]


@pytest.mark.parametrize("value", ["192.0.2.1/24", "nonsense"])
async def test_what_is_no_prefix_is_refused(value: str) -> None:
    with pytest.raises(Exception, match="native"):
        async with kit(native=[value]):
            pass
