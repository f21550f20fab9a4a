"""The agent ends, in every way, and begins again: for the traffic nothing happened."""

from __future__ import annotations

import os
import shutil
from typing import Any

import pytest
from scenes import CLOSED, OPEN, Scene, policy

from axoneme.core.testing.namespaces import ask, reachable

pytestmark = pytest.mark.kernel


def programs(scene: Scene) -> dict[str, int]:
    """The kernel's numbers of what runs: they change when a program is replaced."""
    return {row["name"]: row["id"] for row in scene.node.call("bpf.program.list")}


def pins(scene: Scene) -> set[str]:
    return {str(path.relative_to(scene.node.bpffs)) for path in scene.node.bpffs.rglob("*")}


def test_killed_and_started_again(scene: Scene) -> None:
    before, pinned = programs(scene), pins(scene)
    with scene.traffic() as traffic:
        traffic.more(20)
        scene.node.kill9()
        traffic.more(50)
        scene.node.start()
        traffic.more(50)
    assert programs(scene) == before, "an unchanged program is adopted, not loaded anew"
    assert pins(scene) == pinned
    assert scene.node.problems() == []


def test_killed_while_it_starts(scene: Scene) -> None:
    """At several moments of a start, each of which leaves something half done."""
    node = scene.node
    with scene.traffic() as traffic:
        for moment in ("workloads restored", "resources_read", "agent started"):
            node.kill9()
            node.start(wait=False)
            node.wait_logged(moment)
        node.kill9()
        traffic.more(20)
        node.start()
        traffic.more(20)
    assert scene.node.problems() == []


def test_stopped_and_started_again(scene: Scene) -> None:
    before = programs(scene)
    with scene.traffic() as traffic:
        assert scene.node.stop() == 0
        assert not scene.node.socket.exists()
        traffic.more(50)
        scene.node.start()
        traffic.more(50)
    assert programs(scene) == before


def test_without_an_agent_new_connections_are_decided_by_the_last_policy(scene: Scene) -> None:
    node, client, server = scene.node, scene.client, scene.server
    stranger = node.workload("stranger", app="stranger")
    with scene.traffic() as traffic:
        node.kill9()
        for address in server.addresses:
            assert ask(client.netns, address, OPEN) == b"hello"
            assert ask(client.netns, address, OPEN, udp=True) == b"hello"
            assert not reachable(client.netns, address, CLOSED, timeout=0.3)
            assert not reachable(stranger.netns, address, OPEN, timeout=0.3)
            assert not reachable(stranger.netns, address, OPEN, udp=True, timeout=0.3)
        traffic.more(20)
        node.start()
        traffic.more(20)
    node.call("workload.remove", name="stranger")


def test_a_policy_that_was_changed_while_no_agent_ran_is_in_force_after_the_start(scene: Scene) -> None:
    node, client, server = scene.node, scene.client, scene.server
    with scene.traffic(closed=False) as traffic:
        node.kill9()
        node.resource("policy.yaml", policy(OPEN, CLOSED))
        node.start()
        for address in server.addresses:
            assert ask(client.netns, address, CLOSED) == b"hello"
        node.kill9()
        node.resource("policy.yaml", policy(OPEN))
        node.start()
        for address in server.addresses:
            assert not reachable(client.netns, address, CLOSED, timeout=0.3)
        traffic.more(20)


def test_a_reload_of_the_same_configuration_changes_nothing(scene: Scene) -> None:
    before, generation = programs(scene), scene.node.status()["agent"]["generation"]
    with scene.traffic() as traffic:
        for _ in range(3):
            scene.node.reload()
        traffic.more(20)
    assert programs(scene) == before
    assert scene.node.status()["agent"]["generation"] == generation


@pytest.mark.parametrize(
    "changed",
    [
        {"datapath": {"timeouts": {"tcp": 3600}}},
        {"datapath": {"strategy": "tailcalls"}},
        {"plugins": {"enabled": ["policy"], "policy": {"allow_localhost": "policy"}}},
    ],
    ids=["timeouts", "strategy", "plugin"],
)
def test_a_reload_of_another_configuration(scene: Scene, changed: dict[str, Any]) -> None:
    """Only a number; other programs; a plugin's section."""
    node, old = scene.node, scene.node.values
    generation = node.status()["agent"]["generation"]
    with scene.traffic() as traffic:
        node.configure({**old, **changed})
        node.reload()
        traffic.more(50)
        assert node.status()["agent"]["generation"] == generation + 1
        assert node.problems() == []
        node.configure(old)
        node.reload()
        traffic.more(50)
    assert node.status()["agent"]["generation"] == generation + 2


def test_a_reload_with_a_smaller_connection_table(scene: Scene) -> None:
    """A map of another size is another map. Connections that it does not know are decided anew, and go on."""
    node, old = scene.node, scene.node.values
    with scene.traffic() as traffic:
        node.configure({**old, "datapath": {"conntrack_entries": 4096}})
        node.reload()
        traffic.more(50)
        node.until(
            lambda: node.metric("axoneme_connections_limit") == 2 * 4096, "the smaller table is in use"
        )
        node.configure(old)
        node.reload()
        traffic.more(50)


def test_a_reload_that_is_refused(scene: Scene) -> None:
    """A setting that cannot change, and one that is unknown: the old configuration stays, and the status says why."""
    node, old = scene.node, scene.node.values
    generation = node.status()["agent"]["generation"]
    with scene.traffic() as traffic:
        for values, words in (
            ({"pools": {"ipv4": "10.9.0.0/16"}}, "pools.ipv4 cannot change while the agent runs"),
            ({"datapath": {"conntrack_entires": 4096}}, "conntrack_entries"),
        ):
            node.configure({**old, **values})
            node.reload()
            (check,) = (row for row in node.status()["checks"] if row["check"] == "configuration")
            assert check["level"] == "degraded"
            assert words in check["reason"]
        traffic.more(20)
        node.configure(old)
        node.reload()
    assert node.status()["agent"]["generation"] == generation
    assert node.problems() == []


def test_the_socket_and_the_lock_of_a_dead_agent_are_no_hindrance(scene: Scene) -> None:
    scene.node.kill9()
    assert scene.node.socket.exists()
    scene.node.start()
    assert scene.node.status()["agent"]["pid"] == scene.node.pid


def test_after_a_start_without_cache_and_pins_everything_is_as_before(scene: Scene) -> None:
    """What the worst of administrators removes: the compiled programs. The pinned ones go on, and are adopted."""
    node = scene.node
    cache = node.folder / "cache"
    with scene.traffic() as traffic:
        node.stop()
        node.configure({**node.values, "agent": {**node.values["agent"], "cache_dir": str(cache)}})
        node.start()
        traffic.more(20)
    shutil.rmtree(cache, ignore_errors=True)
    assert os.path.exists(node.socket)
