"""Policies and workloads change under traffic: at every moment each packet is judged by the old state or by the new one."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scenes import CLOSED, OPEN, Scene, policy

from axoneme.core.testing.namespaces import Namespaces, ask, reachable, within
from axoneme.core.testing.node import Placed
from axoneme.core.testing.traffic import Traffic, mesh

pytestmark = pytest.mark.kernel

#: A policy file is replaced so often, in so many seconds.
REPLACEMENTS, SECONDS = 200, 20.0


def renamed_over(file: Path, text: str) -> None:
    """As careful programs replace a file."""
    new = file.with_name(f".{file.name}.new")
    new.write_text(text)
    os.replace(new, file)


def in_place(file: Path, text: str) -> None:
    """As editors and shells do: the file is empty for a moment, and half written for another."""
    with file.open("w") as opened:
        for part in (text[: len(text) // 2], text[len(text) // 2 :]):
            opened.write(part)
            opened.flush()


@pytest.mark.slow
def test_a_policy_file_that_is_replaced_200_times_in_20_seconds(scene: Scene) -> None:
    """Two policies that differ in what nobody uses; by renaming and in place, in turns."""
    file = scene.node.resources / "policy.yaml"
    texts = itertools.cycle([policy(OPEN, 8000), policy(OPEN, 9000)])
    writers: Iterator[Callable[[Path, str], None]] = itertools.cycle([renamed_over, in_place, in_place])
    with scene.traffic() as traffic:
        updates = scene.node.metric("axoneme_policy_updates_total")
        begin = time.monotonic()
        for number in range(REPLACEMENTS):
            next(writers)(file, next(texts))
            time.sleep(max(0.0, begin + (number + 1) * SECONDS / REPLACEMENTS - time.monotonic()))
        file.write_text(policy(OPEN))
        scene.node.until(lambda: not decided(scene, 9000) and not decided(scene, 8000), "the last policy")
        traffic.more(20)
        assert scene.node.metric("axoneme_policy_updates_total") - updates > REPLACEMENTS / 2
    assert scene.node.problems() == []


def decided(scene: Scene, port: int) -> bool:
    """Whether the policies in force say anything about this port."""
    return f"'{port}/" in str(scene.node.call("policy.get"))


class Held:
    """A TCP connection and a UDP socket to one of the server's addresses that stay open."""

    def __init__(self, scene: Scene, address: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.sockets = [
            within(scene.client.netns, lambda kind=kind: socket.socket(family, kind))
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)
        ]
        for each in self.sockets:
            each.settimeout(10)
            each.connect((address, port))

    def say(self, word: bytes) -> None:
        for each in self.sockets:
            each.sendall(word)

    def answers(self, word: bytes) -> bool:
        """Whether the connection brings this and nothing else; the datagram may be one that never arrived."""
        tcp, udp = self.sockets
        if tcp.recv(len(word)) != word:
            return False
        udp.sendall(word)
        return udp.recv(64) == word

    def silent(self, seconds: float = 0.4) -> bool:
        for each in self.sockets:
            each.settimeout(seconds)
            try:
                each.recv(64)
            except TimeoutError:
                continue
            finally:
                each.settimeout(10)
            return False
        return True

    def close(self) -> None:
        for each in self.sockets:
            each.close()


def test_established_connections_follow_the_policy(scene: Scene) -> None:
    """Allowed, denied, allowed again: the same connection is decided anew with its next packet."""
    node = scene.node
    node.resource("policy.yaml", policy(OPEN, CLOSED))
    node.until(lambda: decided(scene, CLOSED), "the door is open")
    with scene.traffic(closed=False) as traffic, contextlib.ExitStack() as owned:
        held = [Held(scene, address, CLOSED) for address in scene.server.addresses]
        for each in held:
            owned.callback(each.close)
            each.say(b"one")
            assert each.answers(b"one")
        node.resource("policy.yaml", policy(OPEN))
        node.until(lambda: not decided(scene, CLOSED), "the door is closed")
        for each in held:
            each.silent(0.01)  # what was under way may still arrive
            each.say(b"two")
        assert all(each.silent() for each in held)
        node.resource("policy.yaml", policy(OPEN, CLOSED))
        node.until(lambda: decided(scene, CLOSED), "the door is open again")
        assert all(each.answers(b"two") for each in held), "TCP sends it again by itself"
        traffic.more(20)
    node.resource("policy.yaml", policy(OPEN))
    node.until(lambda: not decided(scene, CLOSED), "everything is as before")


def test_a_policy_that_is_removed_and_comes_back(scene: Scene) -> None:
    node = scene.node
    file = node.resources / "policy.yaml"
    text = file.read_text()
    with scene.traffic(closed=False) as traffic:
        file.unlink()
        node.until(lambda: not decided(scene, OPEN), "no policy")
        for address in scene.server.addresses:
            assert ask(scene.client.netns, address, CLOSED) == b"hello"
        file.write_text(text)
        node.until(lambda: decided(scene, OPEN), "the policy")
        for address in scene.server.addresses:
            assert not reachable(scene.client.netns, address, CLOSED, timeout=0.3)
        traffic.more(20)


def test_workloads_come_and_go(scene: Scene) -> None:
    """A new one may talk, or not, from its first packet on: there is no moment in which nobody knows it."""
    node = scene.node
    with scene.traffic() as traffic:
        for number in range(12):
            friend = node.workload(f"friend{number}", app="client")
            stranger = node.workload(f"stranger{number}", app="stranger")
            for address in scene.server.addresses:
                assert ask(friend.netns, address, OPEN, udp=True) == b"hello", "its first packet got lost"
                assert ask(friend.netns, address, OPEN) == b"hello"
                assert not reachable(stranger.netns, address, OPEN, udp=True, timeout=0.05)
                assert not reachable(stranger.netns, address, OPEN, timeout=0.05)
            for gone in (friend, stranger):
                node.call("workload.remove", name=gone.name)
                assert not Path(gone.netns).exists()
        traffic.more(20)
    assert [row["name"] for row in node.call("endpoint.list")] == ["client", "server"]
    assert node.problems() == []


def test_a_workload_that_is_labelled_anew(scene: Scene) -> None:
    """Its connections are judged by what it is now."""
    node, address = scene.node, scene.server.ipv4
    with scene.traffic() as traffic:
        other = node.workload("other", app="stranger")
        assert not reachable(other.netns, address, OPEN, timeout=0.2)
        node.workload("other", app="client")
        node.until(lambda: reachable(other.netns, address, OPEN, timeout=0.2), "it may talk now")
        node.workload("other", app="stranger")
        node.until(lambda: not reachable(other.netns, address, OPEN, timeout=0.2), "it may not any more")
        traffic.more(20)
    node.call("workload.remove", name="other")


def test_a_namespace_that_was_there_before_is_used_and_left(scene: Scene, namespaces: Namespaces) -> None:
    node, netns = scene.node, namespaces.make()
    with scene.traffic() as traffic:
        node.call("workload.add", name="guest", labels={"app": "client"}, netns=netns)
        for address in scene.server.addresses:
            assert ask(netns, address, OPEN, udp=True) == b"hello"
        node.kill9()
        node.start()
        for address in scene.server.addresses:
            assert ask(netns, address, OPEN, udp=True) == b"hello"
        node.call("workload.remove", name="guest")
        assert not reachable(netns, scene.server.ipv4, OPEN, timeout=0.2)
        traffic.more(20)
    assert Path("/run/netns", netns).exists()


def test_a_workload_that_leaves_takes_its_rights_along(scene: Scene) -> None:
    """Its address goes to nobody else soon, and if it did, not with the old one's identity."""
    node = scene.node
    with scene.traffic():
        first = node.workload("leaver", app="client")
        assert ask(first.netns, scene.server.ipv4, OPEN) == b"hello"
        node.call("workload.remove", name="leaver")
        heir = node.call(
            "workload.add", name="heir", labels={"app": "stranger"}, ipv4=first.ipv4, ipv6=first.ipv6
        )
        for address in scene.server.addresses:
            assert not reachable(heir["netns"], address, OPEN, timeout=0.2)
            assert not reachable(heir["netns"], address, OPEN, udp=True, timeout=0.2)
        node.call("workload.remove", name="heir")


def test_many_workloads_come_while_the_agent_dies(scene: Scene) -> None:
    """What was being added when it died is finished or gone, never half there."""
    node, added = scene.node, list[Placed]()
    stop = threading.Event()

    def add() -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            with contextlib.suppress(Exception):  # the agent is dead
                added.append(node.workload(f"crowd{number}", app="client"))

    with scene.traffic() as traffic:
        for _ in range(3):
            stop.clear()
            thread = threading.Thread(target=add)
            thread.start()
            before = len(added)
            node.until(lambda wanted=before + 3: len(added) >= wanted, "some more workloads")
            node.kill9()
            stop.set()
            thread.join()
            node.start()
        traffic.more(20)
        rows = {row["name"]: row for row in node.call("endpoint.list")}
        assert {row["state"] for row in rows.values()} == {"ready"}
        assert {one.name for one in added} <= set(rows), "what was promised is there"
        for one in added:
            assert ask(one.netns, scene.server.ipv4, OPEN, udp=True) == b"hello"
        for name in set(rows) - {"client", "server"}:
            node.call("workload.remove", name=name)
    assert node.problems() == []


def test_traffic_between_workloads_of_two_names(scene: Scene) -> None:
    """Policy is about labels: another pair with the same ones has the same rights, whatever they are called."""
    node = scene.node
    client, server = node.workload("c2", app="client"), node.workload("s2", app="server")
    with (
        scene.traffic(),
        Traffic(servers=[(server.netns, OPEN)], flows=mesh(client.netns, server.addresses, OPEN)) as two,
    ):
        two.more(20)
    two.check()
    for name in ("c2", "s2"):
        node.call("workload.remove", name=name)
