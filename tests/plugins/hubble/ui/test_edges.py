"""Edges: adding up in bulk gives what adding up one by one gives, and a scan of ports is no thousand edges."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from axoneme.plugins.hubble.columns import View, empty
from axoneme.plugins.hubble.names import Names
from axoneme.plugins.hubble.proto.flow_pb2 import Endpoint
from axoneme.plugins.hubble.ui.edges import Edges
from axoneme.plugins.hubble.ui.parties import MOST, Parties, Party, party

KINDS, VERDICTS = (1, 4, 5, 7, 129), (1, 2, 4, 5)


def names_of_three() -> tuple[Names, list[int]]:
    names = Names()
    endpoints = [
        Endpoint(ID=1, namespace="shop", pod_name="web", workloads=[{"name": "web"}]),
        Endpoint(ID=2, namespace="data", pod_name="db-0", workloads=[{"name": "db"}]),
        Endpoint(identity=2, labels=["reserved:world"]),
    ]
    return names, [names.endpoints.number(one) for one in endpoints]


def rows(draw: Any, count: int) -> list[dict[str, int]]:
    row = st.fixed_dictionaries(
        {
            "source": st.sampled_from([0, 1, 2]), "destination": st.sampled_from([0, 1, 2]),
            "protocol": st.sampled_from([1, 2, 3]), "destination_port": st.sampled_from([80, 443]),
            "event_type": st.sampled_from(KINDS), "verdict": st.sampled_from(VERDICTS), "reply": st.sampled_from([0, 1, 2]),
            "drop_reason": st.sampled_from([0, 133]), "l7": st.sampled_from([0, 2]), "egress_rule": st.sampled_from([0, 7]),
        }
    )  # fmt: skip
    return draw(st.lists(row, min_size=count, max_size=count))  # type: ignore[no-any-return]


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_in_bulk_as_one_by_one(data: st.DataObject) -> None:
    names, numbers = names_of_three()
    drawn = rows(data.draw, data.draw(st.integers(1, 30)))
    columns = empty(len(drawn))
    for place, row in enumerate(drawn):
        for name, value in row.items():
            columns[name][place] = numbers[value] if name in ("source", "destination") else value
    edges = Edges(Parties(names))
    edges.add(View(0, columns, names), np.arange(len(drawn)))
    expected: Counter[tuple[Any, ...]] = Counter()
    ids = ("workload:shop/web", "workload:data/db", "world:")
    for row in drawn:
        told = row["event_type"] in (1, 4, 129) or (row["event_type"] == 5 and row["verdict"] in (4, 5))
        if told and row["reply"] != 2:
            port = row["destination_port"] if row["protocol"] in (1, 2) else 0
            kind = {1: "forwarded", 2: "dropped", 4: "audit", 5: "redirected"}[row["verdict"]]
            expected[ids[row["source"]], ids[row["destination"]], row["protocol"], port, row["l7"], kind] += 1
    found: Counter[tuple[Any, ...]] = Counter()
    for edge in edges.plain():
        protocol = {"TCP": 1, "UDP": 2, "ICMP": 3}[edge["protocol"]]
        for kind in ("forwarded", "dropped", "audit", "redirected"):
            key = (
                edge["source"],
                edge["destination"],
                protocol,
                edge["port"],
                {"": 0, "HTTP": 2}[edge["l7"]],
                kind,
            )
            found[key] += edge[kind]
    assert +found == expected
    assert edges.count == sum(expected.values())


def test_a_scan_of_ports_is_one_edge() -> None:
    names, numbers = names_of_three()
    columns = empty(50_000)
    columns["source"][:], columns["destination"][:] = numbers[0], numbers[1]
    columns["destination_port"] = np.arange(50_000).astype(np.uint16)
    columns["protocol"][:], columns["event_type"][:], columns["verdict"][:] = 1, 1, 2
    edges = Edges(Parties(names))
    edges.add(View(0, columns, names), np.arange(50_000))
    (edge,) = edges.plain()
    assert (edge["dropped"], edge["port"]) == (50_000, 0)


def test_parties() -> None:
    assert party(Endpoint(labels=["cidr:10.0.0.0/8", "reserved:world"])).id == "cidr:10.0.0.0/8"
    assert party(Endpoint(labels=["reserved:host"])).kind == "host"
    assert party(Endpoint(namespace="a", labels=["k8s:app=gone"])).id == "workload:a/gone"
    assert party(None).kind == "other"
    parties = Parties(Names())
    numbers = {parties.number(Party(f"workload:n/{n}", "workload", str(n))) for n in range(MOST + 100)}
    assert len(numbers) == MOST + 1, "those beyond are one"
