"""The connection table is full: new connections are refused, people are told why, and what lives goes on."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from scenes import OPEN, Scene, policy, scene_of

from axoneme.core.testing.namespaces import flood
from axoneme.core.testing.traffic import Kind, Traffic

pytestmark = pytest.mark.kernel

#: A port that is open and on which nobody listens, so that the flood costs only entries.
FLOODED = 82
ENTRIES = 1024
REASON = "CT: Map insertion failed"


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    values = {
        "plugins": {"enabled": ["policy"]},
        "datapath": {"conntrack_entries": ENTRIES, "timeouts": {"gc_interval": 0.2}},
    }
    with scene_of(values, text=policy(OPEN, FLOODED)) as made:
        yield made


def flooded(scene: Scene, flows: int, *, per_second: int = 4000) -> None:
    for address in scene.server.addresses:
        flood(scene.client.netns, address, FLOODED, flows // 2, per_second=per_second)


def refused(scene: Scene) -> float:
    """Drops for that reason, as the metric has them."""
    rows = scene.node.call("metrics")
    return float(
        sum(
            row["value"]
            for row in rows
            if row["name"] == "cilium_drop_count_total" and row["labels"]["reason"] == REASON
        )
    )


def entries(scene: Scene, family: int) -> int:
    return sum(len(part) for part in scene.node.stream("bpf.map.dump", name=f"connections{family}"))


@contextlib.contextmanager
def lasting(scene: Scene) -> Iterator[Traffic]:
    """Connections that are there before, of which nothing may fail or get lost."""
    flows = [flow for flow in scene.flows(closed=False) if flow.kind is not Kind.REQUEST]
    with Traffic(servers=[(scene.server.netns, OPEN)], flows=flows) as traffic:
        yield traffic
        traffic.more(50)
    print(traffic.check())


def is_full(scene: Scene) -> str:
    (told,) = scene.node.until(
        lambda: [p for p in scene.node.problems() if "is full" in p], "the status says so"
    )
    return str(told)


def well_again(scene: Scene) -> None:
    """Without anybody's help."""
    node = scene.node
    room = 0.9 * ENTRIES
    node.until(
        lambda: max(entries(scene, 4), entries(scene, 6)) < room, "what was never answered is forgotten"
    )
    node.until(lambda: not node.problems(), "all is well again")
    with scene.traffic(closed=False):
        pass  # new connections, too


def test_new_connections_are_refused_and_live_ones_survive(scene: Scene) -> None:
    node, monitored = scene.node, scene.node.folder / "monitored"
    assert node.metric("axoneme_connections_limit") == 2 * ENTRIES
    with lasting(scene), ThreadPoolExecutor() as pool, open(monitored, "wb") as output:
        monitor = node.spawn("monitor --type drop --last 1 -o json", output)
        flooding = pool.submit(flooded, scene, 12_000)
        told = is_full(scene)
        assert f"it holds {ENTRIES} entries, and" in told
        assert told.endswith("packets of new connections were refused; raise datapath.conntrack_entries")
        brief = node.axoneme("status", "--brief", code=1).stdout
        assert brief.startswith("degraded: core: connection table IPv")
        assert max(entries(scene, 4), entries(scene, 6)) <= ENTRIES
        flooding.result()
        monitor.wait(10)
    drop = json.loads(monitored.read_text().splitlines()[0])
    assert (drop["reason_text"], drop["destination"]["port"]) == (REASON, FLOODED)
    assert node.metric("axoneme_connections_evicted_total") == 0
    well_again(scene)
    assert refused(scene) == node.metric("axoneme_connections_refused_total") > 5_000


def test_a_restart_while_it_is_full(scene: Scene) -> None:
    """What was granted holds on for a while: a new agent comes, and nobody had to give way meanwhile."""
    node = scene.node
    with lasting(scene) as traffic, ThreadPoolExecutor() as pool:
        flooding = pool.submit(flooded, scene, 12_000)
        is_full(scene)
        node.kill9()
        traffic.more(20)
        node.start()
        is_full(scene)
        flooding.result()
    assert node.metric("axoneme_connections_evicted_total") == 0
    well_again(scene)


def test_a_reload_makes_room(scene: Scene) -> None:
    """As the status advises; no connection notices."""
    node = scene.node
    with scene.traffic(closed=False) as traffic:
        node.configure({**node.values, "datapath": {**node.values["datapath"], "conntrack_entries": 65536}})
        node.reload()
        node.until(
            lambda: node.metric("axoneme_connections_limit") == 2 * 65536,
            "the larger table was looked through",
        )
        before = refused(scene)
        flooded(scene, 4_000)
        node.until(lambda: node.metric("axoneme_connections") > 8_000, "the table holds them")
        traffic.more(20)
        assert refused(scene) == before
        assert node.metric("axoneme_connections_evicted_total") == 0
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
