"""What fits into the kernel's tables, and that want of room opens nothing."""

from __future__ import annotations

from itertools import product
from typing import Any

from generators import IDENTITIES, PODS, policy_lists, subject
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from axoneme.core.workloads.identities import workload_labels
from axoneme.plugins.policy.config import PolicyConfig
from axoneme.plugins.policy.engine import Engine
from axoneme.plugins.policy.fit import Room, fit, fits, needs
from axoneme.plugins.policy.language import parse_policy
from axoneme.plugins.policy.model import Direction, Protocol
from axoneme.plugins.policy.selectors import Identity
from axoneme.plugins.policy.subject import Subject
from axoneme.plugins.policy.tables import Tables

PEERS, APPS, PORTS = 20_000, 100, 50
RULE = 99


def server(rules: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "server", "namespace": "blue"},
        "spec": {"endpointSelector": {"matchLabels": {"app": "server"}}, "ingress": rules},
    }


def test_entries_grow_with_peers_plus_classes_times_ports() -> None:
    """20,000 peers of a hundred applications, each of which may use fifty ports: not a million entries, but 25,201."""
    engine = Engine()
    for number in range(PEERS):
        labels = workload_labels({"app": f"app{number % APPS}", "pod": str(number)}, "blue")
        engine.upsert_identity(Identity(256 + number, labels))
    engine.upsert_subject(1, Subject(workload_labels({"app": "server"}, "blue")))
    ports = [{"port": str(1000 + 2 * number), "protocol": "TCP"} for number in range(PORTS)]
    rules = [
        {
            "fromEndpoints": [{"matchLabels": {"app": f"app{number}"}}],
            "toPorts": [{"ports": ports[:25]}, {"ports": ports[25:]}],
        }
        for number in range(APPS)
    ]
    engine.upsert_policy(parse_policy(server(rules)))
    engine.commit()
    tables = engine.tables
    assert tables.peer_count == PEERS
    assert (
        tables.verdict_count == APPS * (PORTS + 1) + 2
    )  # the default deny, and the direction without policy
    config = PolicyConfig()
    assert fits(needs(tables), Room(config.peers, config.verdicts))
    for identity, port in ((256, 1000), (256 + PEERS - 1, 1098)):
        found = tables.lookup(1, Direction.INGRESS, identity, Protocol.TCP, port)
        assert found is not None
        assert found.action.allows
        assert not tables.lookup(1, Direction.INGRESS, identity, Protocol.TCP, port + 1).action.allows  # type: ignore[union-attr]


PROBES = [
    (endpoint, direction, one.number, int(protocol), port)
    for endpoint, direction, one in product(list(PODS)[::2], Direction, IDENTITIES)
    for protocol, port in ((Protocol.TCP, 80), (Protocol.TCP, 8080), (Protocol.UDP, 53), (Protocol.ICMP, 8))
]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(policy_lists, st.integers(1, 60), st.integers(4, 60), st.booleans())
def test_want_of_room_opens_nothing(objects: list[Any], peers: int, verdicts: int, known: bool) -> None:
    engine = Engine()
    for identity in IDENTITIES:
        engine.upsert_identity(identity)
    for endpoint in PODS:
        engine.upsert_subject(endpoint, subject(endpoint))
    for one in objects:
        engine.upsert_policy(parse_policy(one))
    engine.commit()
    desired, room = engine.tables, Room(peers, verdicts)
    present = desired.copy() if known else Tables()
    found, shortfall = fit(desired, room, present, RULE)
    assert fits(needs(found), room)
    assert bool(shortfall) is not fits(needs(desired), room)
    for probe in PROBES:
        wanted, got = desired.lookup(*probe), found.lookup(*probe)
        assert wanted is not None
        assert got is not None
        if got.action.allows:
            assert got._replace(rule=0) == wanted._replace(rule=0)
        endpoint, direction = probe[:2]
        if endpoint not in shortfall.narrowed and direction not in shortfall.closed.get(endpoint, ()):
            assert got == wanted
