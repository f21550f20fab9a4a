"""What needs another plugin is never open without it: every kind of layer 7 rule, and every authentication mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from axoneme.core.datapath.proxies import Proxy
from axoneme.core.testing.node import Node
from axoneme.core.workloads.identities import workload_labels
from axoneme.plugins.policy.engine import Engine
from axoneme.plugins.policy.language import parse_policy
from axoneme.plugins.policy.model import Auth, Direction, Policy
from axoneme.plugins.policy.selectors import Identity
from axoneme.plugins.policy.subject import Subject
from axoneme.plugins.policy.tables import Action, VerdictValue

TCP, SERVER, CLIENT = 6, 257, 258
LISTENER = {"envoyConfig": {"name": "config"}, "name": "listener"}
KINDS: dict[str, tuple[dict[str, Any], Proxy]] = {
    "http": ({"rules": {"http": [{"method": "GET"}]}}, Proxy.HTTP),
    "kafka": ({"rules": {"kafka": [{"topic": "t"}]}}, Proxy.KAFKA),
    "dns": ({"rules": {"dns": [{"matchName": "a.io"}]}}, Proxy.DNS),
    "another parser": ({"rules": {"l7proto": "cassandra", "l7": [{"a": "b"}]}}, Proxy.OTHER),
    "serverNames": ({"serverNames": ["a.io"]}, Proxy.TLS),
    "listener": ({"listener": LISTENER}, Proxy.LISTENER),
}


def labels(app: str) -> tuple[str, ...]:
    return workload_labels({"app": app}, "default")


def decided(**rule: Any) -> tuple[VerdictValue, Engine]:
    """What the client's egress policy says about port 80 of the server."""
    rule = {"toEndpoints": [{"matchLabels": {"app": "server"}}], **rule}
    spec = {"endpointSelector": {"matchLabels": {"app": "client"}}, "egress": [rule]}
    parsed = parse_policy({"kind": "CiliumNetworkPolicy", "metadata": {"name": "p"}, "spec": spec})
    assert isinstance(parsed, Policy)
    engine = Engine()
    for number, app in ((SERVER, "server"), (CLIENT, "client")):
        engine.upsert_identity(Identity(number, labels(app)))
    engine.upsert_subject(1, Subject(labels("client")))
    engine.upsert_policy(parsed)
    engine.commit()
    found = engine.tables.lookup(1, Direction.EGRESS, SERVER, TCP, 80)
    assert found is not None
    return found, engine


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_7_rule_lets_through_by_its_proxy_only(kind: str) -> None:
    more, proxy = KINDS[kind]
    found, engine = decided(toPorts=[{"ports": [{"port": "80", "protocol": "TCP"}], **more}])
    assert (found.action, found.proxy_port) == (Action.REDIRECT, proxy)
    assert found.l7 in engine.l7


@pytest.mark.parametrize("mode", list(Auth))
def test_an_authentication_mode_is_owed(mode: Auth) -> None:
    found, _ = decided(authentication={"mode": mode.text})
    assert (found.action, found.auth, found.proxy_port) == (Action.ALLOW, int(mode), 0)


@pytest.mark.kernel
def test_without_the_plugins_all_of_it_is_dropped_and_says_why(tmp_path: Path) -> None:
    """Whole: files, agent, packets, and the reason that the kernel counts."""
    import yaml

    from axoneme.core.testing.namespaces import Namespaces, reachable

    ports = {80 + number: more for number, (more, _) in enumerate(KINDS.values())}
    peer = {"toEndpoints": [{"matchLabels": {"app": "server"}}]}
    rules = [
        {**peer, "toPorts": [{"ports": [{"port": str(port), "protocol": "TCP"}], **more}]}
        for port, more in ports.items()
    ]
    rules.append({**peer, "toPorts": [{"ports": [{"port": "90"}]}], "authentication": {"mode": "required"}})
    rules.append({**peer, "toPorts": [{"ports": [{"port": "91"}]}]})
    spec = {"endpointSelector": {"matchLabels": {"app": "client"}}, "egress": rules}
    value = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "p"},
        "spec": spec,
    }
    with Namespaces() as owned, Node({"plugins": {"enabled": ["policy"]}}) as node:
        node.resource("policy.yaml", yaml.safe_dump(value))
        node.start()
        client, server = (node.workload(name, app=name) for name in ("client", "server"))
        for port in (*ports, 90, 91):
            owned.serve_tcp(server.netns, port)
        assert reachable(client.netns, server.ipv4, 91)
        dropped = [
            port for port in (*ports, 90) if not reachable(client.netns, server.ipv4, port, timeout=0.15)
        ]
        assert dropped == [*ports, 90]
        rows = {
            row["labels"]["reason"]: row["value"]
            for row in node.call("metrics")
            if row["name"] == "axoneme_packets_total"
        }
        assert rows["PROXY_ABSENT"] >= len(ports)
        assert rows["AUTH_REQUIRED"] >= 1
        assert "POLICY_DENIED" not in rows
