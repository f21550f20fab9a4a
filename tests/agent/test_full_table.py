"""The connection table is full: the oldest entries give way, people are told, and what lives goes on."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from scenes import OPEN, Scene, policy, scene_of

from axoneme.core.testing.namespaces import within

pytestmark = pytest.mark.kernel

#: A port that is open and on which nobody listens, so that the flood costs only entries.
FLOODED = 82
ENTRIES = 1024


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    values = {
        "plugins": {"enabled": ["policy"]},
        "datapath": {"conntrack_entries": ENTRIES, "timeouts": {"gc_interval": 0.2}},
    }
    with scene_of(values, text=policy(OPEN, FLOODED)) as made:
        yield made


def flood(scene: Scene, flows: int, *, per_second: int = 4000) -> None:
    """So many UDP flows, each of one datagram, from ports of their own."""
    for address in scene.server.addresses:
        within(scene.client.netns, lambda address=address: _flood(address, flows // 2, per_second))


def _flood(address: str, flows: int, per_second: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    begin = time.monotonic()
    for number in range(flows):
        with socket.socket(family, socket.SOCK_DGRAM) as once:
            once.bind(("", 2000 + number))
            once.sendto(b"flood", (address, FLOODED))
        if number % 40 == 0:  # a rate at which the table is renewed several times a second
            time.sleep(max(0.0, begin + number / per_second - time.monotonic()))


def test_the_oldest_entries_give_way_and_live_connections_survive(scene: Scene) -> None:
    node = scene.node
    assert node.metric("axoneme_connections_evicted_total") == 0
    with scene.traffic(closed=False) as traffic, ThreadPoolExecutor() as pool:
        flooding = pool.submit(flood, scene, 20_000)
        (told,) = node.until(lambda: [p for p in node.problems() if "is full" in p], "the status says so")
        assert "gave way so far; raise datapath.conntrack_entries" in told
        brief = node.axoneme("status", "--brief", code=1).stdout
        assert brief.startswith("degraded: core: connection table IPv")
        flooding.result()
        traffic.more(50)
    # Each flow takes two entries; what is still there, and what the kernel keeps in reserve, did not give way.
    assert node.metric("axoneme_connections_evicted_total") > 40_000 - 4 * ENTRIES - 10_000
    node.until(lambda: not node.problems(), "all is well again")


def test_a_reload_makes_room(scene: Scene) -> None:
    """As the status advises; no connection notices."""
    node = scene.node
    with scene.traffic(closed=False) as traffic:
        node.configure({**node.values, "datapath": {**node.values["datapath"], "conntrack_entries": 65536}})
        node.reload()
        evicted = node.metric("axoneme_connections_evicted_total")
        flood(scene, 4_000)
        node.until(lambda: node.metric("axoneme_connections") > 8_000, "the table holds them")
        traffic.more(20)
        assert node.metric("axoneme_connections_evicted_total") == evicted
    assert node.problems() == []


def test_silent_connections_are_forgotten_by_the_timeouts_in_force(scene: Scene) -> None:
    """A reload with other timeouts counts at once, for the entries that are there."""
    node = scene.node
    timeouts = {"gc_interval": 0.1, "any": 1}
    with scene.traffic(closed=False) as traffic:
        assert node.metric("axoneme_connections") > 8_000
        node.configure({**node.values, "datapath": {**node.values["datapath"], "timeouts": timeouts}})
        node.reload()
        node.until(lambda: node.metric("axoneme_connections") < 4_000, "silent ones are gone")
        traffic.more(20)
        assert node.problems() == []
