"""Recorded connections under other policies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from scenery import NOW, SECOND, Met, names_of, policies, record, store, workloads

from axoneme.core.datapath.abi import EventType
from axoneme.core.events.store.writer import EventStore, Limits
from axoneme.plugins.policy.rehearsal.inputs import Inputs
from axoneme.plugins.policy.rehearsal.recorded import recorded
from axoneme.plugins.policy.rehearsal.replay import replay

WORKLOADS = """\
- {name: db, namespace: prod, labels: {app: db}, ports: {sql: {port: 5432}}}
- {name: api, namespace: prod, labels: {app: api}}
- {name: web, namespace: prod, labels: {app: web}}
"""
DB = """\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: db, namespace: prod}
spec:
  endpointSelector: {matchLabels: {app: db}}
  ingress:
    - fromEndpoints: [{matchLabels: {app: api}}]
      toPorts: [{ports: [{port: sql, protocol: TCP}]}]
    - fromCIDR: [10.1.0.0/16]
"""


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    return workloads(tmp_path, WORKLOADS)


def told(rows: list[dict[str, Any]]) -> dict[tuple[str, str, str], int]:
    return {
        (row["source"].rpartition("/")[2], row["destination"].rpartition("/")[2], row["port"]): row[
            "connections"
        ]
        for row in rows
    }


def test_what_would_have_been_dropped_and_what_not(inputs: Inputs, tmp_path: Path) -> None:
    folder = store(
        tmp_path / "events",
        inputs,
        [
            Met("api", "db", 5432),
            Met("web", "db", 5432, at=1),
            Met("web", "db", 5432, at=60),
            Met("web", "db", 8, 1, at=2),
            Met("10.1.2.3", "db", 80, at=3),
            Met("10.2.2.3", "db", 80, at=4),
            Met("api", "db", 5433, allowed=False, at=5),
            Met("10.1.9.9", "db", 443, allowed=False, at=6),
            Met("web", "8.8.8.8", 53, 17, at=7),
            Met("host", "db", 22, at=8),
        ],
    )
    answer = replay(inputs, policies(inputs, DB), folder)
    assert told(answer["would_drop"]) == {
        ("web", "db", "5432/TCP"): 2, ("web", "db", "8/ICMP"): 1, ("10.2.2.3", "db", "80/TCP"): 1
    }  # fmt: skip
    assert told(answer["would_allow"]) == {("10.1.9.9", "db", "443/TCP"): 1}
    row = answer["would_drop"][0]
    assert (row["recorded"], row["now"], row["after"]) == ("allow", "allow", "deny")
    assert (row["first"], row["last"]) == ("2023-11-14T22:13:21.000Z", "2023-11-14T22:14:20.000Z")
    assert row["rules_after"][0]["path"] == "default-deny"
    assert row["rules_after"][0]["file"] == "new.yaml"
    assert answer["would_allow"][0]["rules_after"][0]["path"] == "spec.ingress[1]"
    assert (answer["connections"], answer["would_drop_connections"]) == (10, 4)
    assert (answer["unknown"], answer["overflow"], answer["damaged"]) == (0, 0, 0)

    since, until = NOW + 2 * SECOND, NOW + 7 * SECOND
    assert told(replay(inputs, policies(inputs, DB), folder, since, until)["would_drop"]) == {
        ("web", "db", "8/ICMP"): 1, ("10.2.2.3", "db", "80/TCP"): 1
    }  # fmt: skip


def test_they_are_judged_by_what_they_were_then(inputs: Inputs, tmp_path: Path) -> None:
    """A workload that is gone, and one that has other labels now."""
    folder = store(tmp_path / "events", inputs, [Met("api", "db", 5432), Met("web", "db", 5432)])
    now = workloads(
        tmp_path, WORKLOADS.replace("app: web", "app: api").replace("- {name: api,", "# {name: api,")
    )
    answer = replay(now, policies(now, DB), folder)
    assert told(answer["would_drop"]) == {("web", "db", "5432/TCP"): 1}
    assert told(replay(now, policies(now, DB.replace("app: api", "app: web")), folder)["would_drop"]) == {
        ("api", "db", "5432/TCP"): 1
    }


def test_old_connections_count_and_replies_do_not_turn_them_round(inputs: Inputs, tmp_path: Path) -> None:
    """Connections that began before are known by samples and by their end, whoever sent the last packet."""
    names = names_of(inputs)
    with EventStore(tmp_path / "events", Limits(), clock=lambda: NOW) as opened:
        opened.append(record(inputs, Met("web", "db", 5432, kind=EventType.UPDATE)), names, offset=0)
        opened.append(record(inputs, Met("web", "db", 5432, kind=EventType.UPDATE, at=30)), names, offset=0)
        last = record(inputs, Met("db", "web", 40000, kind=EventType.CLOSE, at=60))
        last["sport"], last["reply"] = 5432, 1
        last["dport"] = 40000
        opened.append(last, names, offset=0)
        refused = record(inputs, Met("db", "web", 40000, allowed=False, at=61))
        refused["reply"] = 1
        opened.append(refused, names, offset=0)
        other = record(inputs, Met("web", "db", 1, allowed=False, at=62))
        other["reason"] = 132  # spoofed: no policy would have helped
        opened.append(other, names, offset=0)
    (key,) = (found := recorded(tmp_path / "events")).flows
    assert (key.source.name, key.destination.name, key.port) == ("prod/web", "prod/db", 5432)
    assert found.flows[key].connections == 1
    assert told(replay(inputs, policies(inputs, DB), tmp_path / "events")["would_drop"]) == {
        ("web", "db", "5432/TCP"): 1
    }


def test_addresses_keep_the_names_that_they_had(inputs: Inputs, tmp_path: Path) -> None:
    """An address that a DNS name stood for then is allowed by that name, though it stands for another one now."""
    from axoneme.core.workloads.endpoints import Identity

    rule = """\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: web, namespace: prod}
spec:
  endpointSelector: {matchLabels: {app: web}}
  egress:
    - toFQDNs: [{matchName: example.org}]
      toPorts: [{ports: [{port: "443", protocol: TCP}]}]
"""
    event = record(inputs, Met("web", "1.2.3.4", 443))
    event["destination_identity"] = (1 << 24) + 7
    known = names_of(inputs)
    labels = ("fqdn:example.org", "reserved:world-ipv4")
    known = evolve(
        known, identities={**known.identities, (1 << 24) + 7: Identity(number=(1 << 24) + 7, labels=labels)}
    )
    with EventStore(tmp_path / "events", Limits(), clock=lambda: NOW) as opened:
        opened.append(event, known, offset=0)
        opened.append(record(inputs, Met("web", "1.2.3.5", 443)), known, offset=0)
    answer = replay(inputs, policies(inputs, rule), tmp_path / "events")
    assert told(answer["would_drop"]) == {("web", "1.2.3.5", "443/TCP"): 1}


def test_who_is_not_known_is_counted(inputs: Inputs, tmp_path: Path) -> None:
    event = record(inputs, Met("web", "db", 80))
    event["source_endpoint"], event["source_identity"] = 999, 99999
    outside = record(inputs, Met("10.2.2.2", "db", 80))
    outside["source_identity"] = (1 << 24) + 99  # of which nothing is known but the address
    with EventStore(tmp_path / "events", Limits(), clock=lambda: NOW) as opened:
        opened.append(event, names_of(inputs), offset=0)
        opened.append(outside, names_of(inputs), offset=0)
    answer = replay(inputs, policies(inputs, DB), tmp_path / "events")
    assert (answer["flows"], answer["unknown"]) == (1, 1)
    assert told(answer["would_drop"]) == {("10.2.2.2", "db", "80/TCP"): 1}
    assert replay(inputs, inputs, tmp_path / "nothing")["flows"] == 0
