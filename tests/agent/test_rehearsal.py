"""A whole agent: what really went through the kernel is recorded, explained, replayed and learnt from; also after kill -9."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from attrs import frozen
from scenes import ENFORCED

from axoneme.core.datapath.abi import EventType
from axoneme.core.events.store.reader import Damage, scan
from axoneme.core.testing.namespaces import ask, ping, reachable
from axoneme.core.testing.node import Node, Placed
from axoneme.core.testing.traffic import Traffic

pytestmark = pytest.mark.kernel

#: The database listens on both; only the first one is its business.
SQL, ADMIN = 5432, 9000

STRICT = """\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: strict, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: db}}
  ingress:
    - fromEndpoints: [{matchLabels: {app: api}}]
      toPorts: [{ports: [{port: "5432", protocol: TCP}]}]
"""


@frozen
class Place:
    node: Node
    db: Placed
    api: Placed
    web: Placed

    @property
    def store(self) -> Path:
        return self.node.folder / "state" / "events"

    def file(self, text: str) -> str:
        path = self.node.folder / "new.yaml"
        path.write_text(text)
        return str(path)

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.node.axoneme("policy", *arguments, "-o", "json", code=code).stdout)

    def recorded(self, kind: EventType, protocol: int, port: int = 0) -> int:
        """How many such records are on the disk."""
        found = [stretch.records for stretch in scan(self.store, types=[kind])]
        return sum(
            int(((one["protocol"] == protocol) & ((one["dport"] == port) | (port == 0))).sum())
            for one in found
        )

    def talk(self) -> None:
        """What happens in this place on a usual day. The last of it is an IPv6 echo."""
        before = self.recorded(EventType.NEW, 58)
        for address in self.db.addresses:
            assert ask(self.api.netns, address, SQL) == b"hello"
            assert ask(self.web.netns, address, ADMIN) == b"hello"
        assert ping(self.web.netns, self.db.ipv4)
        assert ping(self.web.netns, self.db.ipv6)
        self.node.until(lambda: self.recorded(EventType.NEW, 58) > before, "the day on the disk")

    def apply(self, name: str, text: str) -> Path:
        """Puts policies in force, and waits for it."""
        before = self.node.metric("axoneme_policy_updates_total")
        path = self.node.resource(name, text)
        self.node.until(
            lambda: self.node.metric("axoneme_policy_updates_total") > before, "a policy in force"
        )
        return path

    def withdraw(self, path: Path) -> None:
        path.unlink()
        self.node.until(lambda: self.node.call("policy.get")["policies"] == [], "no policy")


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with Node(ENFORCED) as node:
        node.start()
        db, api, web = (node.workload(name, app=name) for name in ("db", "api", "web"))
        with Traffic(servers=[(db.netns, SQL), (db.netns, ADMIN)], flows=[]):
            yield Place(node, db, api, web)


def test_replay_of_what_really_went_through(place: Place) -> None:
    place.talk()
    strict = place.file(STRICT)
    answer = place.json("replay", "-f", strict, "--since", "1h", code=1)
    dropped = {(row["source"], row["destination"], row["port"]) for row in answer["would_drop"]}
    assert dropped == {
        ("default/web", "default/db", f"{ADMIN}/TCP"),
        ("default/web", "default/db", "8/ICMP"),
        ("default/web", "default/db", "128/ICMPV6"),
    }
    assert answer["would_allow"] == []
    assert answer["unknown"] == answer["damaged"] == 0
    assert reachable(place.web.netns, place.db.ipv4, ADMIN), "nothing was applied"
    assert place.node.call("policy.get")["policies"] == []
    place.json("replay", "-f", strict, "--since", "1h", "--until", "30m", code=0)

    rows = place.json("diff", "-f", strict, code=1)["changes"]
    pairs = {(row["source"]["name"], *row["destination"]["workloads"], row["ports"]) for row in rows}
    assert ("app=web", "default/db", "any") in pairs
    assert {ports for name, _, ports in pairs if name == "app=api"} == {
        "0-5431/TCP",
        "5433-65535/TCP",
        "any but TCP",
    }
    place.node.axoneme("policy", "diff", "-f", place.file(STRICT.replace("ingress:", "ingres:")), code=2)


def test_what_was_learnt_allows_it_and_nothing_else(place: Place) -> None:
    place.talk()
    text = place.node.axoneme("policy", "learn", "-l", "app=db").stdout
    path = place.apply("learned.yaml", text)
    try:
        place.talk()
        for address in place.db.addresses:
            assert not reachable(place.web.netns, address, SQL)
            assert not reachable(place.api.netns, address, ADMIN)
        assert not ping(place.api.netns, place.db.ipv4, timeout=1)
        # All that happened, what was refused just now included, would happen again.
        answer = place.json("replay", "-f", str(path), "--since", "1h", code=0)
        assert answer["flows"] >= 7
    finally:
        place.withdraw(path)


def monitored(place: Place) -> str:
    """What `axoneme monitor` shows of the next drop."""
    output = place.node.folder / "monitor"
    with output.open("wb") as file:
        command = place.node.spawn("monitor --type drop --last 1", file)

    def shown() -> bool:
        reachable(place.web.netns, place.db.ipv4, SQL, timeout=0.2)
        return command.poll() is not None

    try:
        place.node.until(shown, "a drop in the monitor")
    finally:
        command.kill()
        command.wait()
    return output.read_text()


def test_every_drop_is_explained_and_what_is_proposed_helps(place: Place) -> None:
    path = place.apply("strict.yaml", STRICT)
    try:
        before = place.recorded(EventType.DROP, 6, SQL)
        assert not reachable(place.web.netns, place.db.ipv4, SQL)
        place.node.until(lambda: place.recorded(EventType.DROP, 6, SQL) > before, "the drop on the disk")
        drop = list(scan(place.store, types=[EventType.DROP]))[-1]
        rule = drop.names.rules[int(drop.records["ingress_rule"][-1])]
        assert rule.describe() == f"default/strict default-deny ({path}:1)"

        shown = monitored(place)
        assert f"Policy denied; ingress by default/strict default-deny ({path}:1)" in shown

        answer = place.json("explain", "web", place.db.ipv4, str(SQL))
        (egress, ingress) = answer["sides"]
        assert (answer["verdict"], egress["verdict"], ingress["verdict"]) == ("denied", "allowed", "denied")
        assert ingress["rule"]["id"] == rule.id, (
            "the kernel's rule, the event's and the explanation's are one"
        )
        assert ingress["default_deny_by"] == [
            {"kind": "CiliumNetworkPolicy", "policy": "default/strict", "file": str(path), "line": 1}
        ]
        shown = place.node.axoneme("policy", "explain", "app=web", "db", f"{SQL}/tcp").stdout
        assert f"other peer    default/strict spec.ingress[0] ({path}:7)" in shown

        proposed = place.apply("proposed.yaml", ingress["suggestion_yaml"])
        assert ask(place.web.netns, place.db.ipv4, SQL) == b"hello"
        assert ask(place.web.netns, place.db.ipv6, SQL) == b"hello"
        assert not reachable(place.web.netns, place.db.ipv4, ADMIN)
        assert yaml.safe_load(proposed.read_text())["kind"] == "CiliumNetworkPolicy"
        assert place.json("explain", "web", "db", str(SQL))["verdict"] == "allowed"
        proposed.unlink()
        place.node.until(lambda: len(place.node.call("policy.get")["policies"]) == 1, "the proposal gone")
        answer = place.json("replay", "--delete", "strict", code=1)
        assert answer["would_drop"] == []
        assert ("default/web", f"{SQL}/TCP") in {
            (row["source"], row["port"]) for row in answer["would_allow"]
        }
    finally:
        place.withdraw(path)


def test_a_killed_agent_forgets_nothing_that_was_written(place: Place) -> None:
    place.talk()
    before = place.recorded(EventType.NEW, 6, SQL)
    place.node.kill9()
    damage = Damage()
    assert sum(len(one.records) for one in scan(place.store, damage=damage)) > 0
    assert damage == Damage()
    assert place.recorded(EventType.NEW, 6, SQL) == before, "it is read without an agent as well"
    shown = place.node.axoneme("monitor", "--since", "1h", "--type", "new", "--workload", "db").stdout
    assert "default/api" in shown
    place.node.start()
    assert place.recorded(EventType.NEW, 6, SQL) >= before
    place.talk()
    assert place.recorded(EventType.NEW, 6, SQL) > before
    answer = place.json("replay", "-f", place.file(STRICT), "--since", "1h", code=1)
    assert answer["would_drop_flows"] >= 3
    assert place.node.problems() == []
