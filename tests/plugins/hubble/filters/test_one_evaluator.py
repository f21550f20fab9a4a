"""The law of filters: what they say of columns, they say of the messages that are made of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from flow_world import World, record
from hypothesis import given, settings
from hypothesis import strategies as st

from axoneme.core.datapath.abi import EventType
from axoneme.plugins.hubble.filters.compiler import compiled
from axoneme.plugins.hubble.load import load
from axoneme.plugins.hubble.proto.flow_pb2 import Flow, FlowFilter

WORDS = {
    4: [(0, 0, 0xFFFF, 0x0A000001), (0, 0, 0xFFFF, 0x0A000102), (0, 0, 0xFFFF, 0xC0000201)],
    6: [(0x20010DB8, 0, 0, 1), (0x20010DB8, 0, 1, 0), (0xFE800000, 0, 0, 1)],
}
#: Endpoint and identity: workloads, the world, one that nobody knows.
PEERS = [(1, 300), (2, 301), (0, 2), (9, 999)]


@st.composite
def some_records(draw: st.DrawFn) -> Any:
    family, protocol = draw(st.sampled_from([(4, 6), (4, 17), (4, 1), (6, 6), (6, 58), (6, 132), (4, 47)]))
    kind = draw(st.sampled_from(list(EventType)))
    source, destination = draw(st.sampled_from(PEERS)), draw(st.sampled_from(PEERS))
    return record(
        kind, family=family, protocol=protocol, tcp_flags=draw(st.integers(0, 63)),
        icmp_type=draw(st.sampled_from([0, 3, 8, 128])), reply=draw(st.integers(0, 1)),
        reason=draw(st.sampled_from([133, 181, 300])) if kind is EventType.DROP else 0,
        flags=draw(st.integers(0, 1)), attach_point=draw(st.integers(0, 3)), next_hop=draw(st.integers(0, 2)),
        ifindex=draw(st.sampled_from([0, 1001, 1002])), auth=draw(st.integers(0, 3)),
        saddr=draw(st.sampled_from(WORDS[family])), daddr=draw(st.sampled_from(WORDS[family])),
        sport=draw(st.sampled_from([0, 53, 40000])), dport=draw(st.sampled_from([80, 443, 65535])),
        source_endpoint=source[0], source_identity=source[1],
        destination_endpoint=destination[0], destination_identity=destination[1],
        egress_rule=draw(st.sampled_from([0, 9, 77])), ingress_rule=draw(st.sampled_from([0, 7, 8])),
    )  # fmt: skip


def listed(*values: Any) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=2)


ADDRESSES = listed(
    "10.0.0.1", "10.0.1.2", "10.0.0.0/16", "2001:db8::/32", "2001:db8::1", "2001:DB8::1", "0.0.0.0/0", "::/0"
)
PODS = listed("shop/", "shop/we", "/", "/api", "web", "other/")
LABELS = listed(
    "app=web", "app in (web, api)", "!app", "k8s:app", "reserved:world", "reserved:app", "app!=web", ""
)
FIELDS: dict[str, st.SearchStrategy[list[Any]]] = {
    "source_ip": ADDRESSES, "destination_ip": ADDRESSES, "source_pod": PODS, "destination_pod": PODS,
    "source_label": LABELS, "destination_label": LABELS,
    "source_port": listed("40000", "53", "8"), "destination_port": listed("80", "443", "65535"),
    "source_identity": listed(300, 2, 0), "destination_identity": listed(301, 999),
    "source_workload": listed({"name": "web"}, {}, {"kind": "Deployment"}),
    "destination_cluster_name": listed("default", "other"),
    "verdict": listed("FORWARDED", "DROPPED", "AUDIT", "TRANSLATED"),
    "event_type": listed({"type": 4}, {"type": 5}, {"type": 1, "match_sub_type": True, "sub_type": 133}, {},
                         {"type": 4, "match_sub_type": True}),
    "protocol": listed("tcp", "UDP", "icmp", "icmpv6", "sctp", "http"),
    "reply": listed(True, False), "tcp_flags": listed({"SYN": True}, {"SYN": True, "ACK": True}, {}),
    "ip_version": listed("IPv4", "IPv6", "IP_NOT_USED"), "traffic_direction": listed("INGRESS", "EGRESS"),
    "drop_reason_desc": listed("POLICY_DENIED", "POLICY_DENY"),
    "node_name": listed("node1", "other/*", "default/n*"), "node_labels": listed("a=b", "!a"),
    "interface": listed({"name": "axo1"}, {"index": 1002}, {}), "encrypted": listed(True, False),
    "source_fqdn": listed("*"), "uuid": listed("x"), "trace_id": listed("x"), "dns_query": listed("."),
    "source_service": listed("/"), "source_ip_xlated": listed("10.0.0.1"),
}  # fmt: skip

filters = st.fixed_dictionaries({}, optional=FIELDS).map(lambda fields: FlowFilter(**fields))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(some_records(), min_size=1, max_size=12),
    st.lists(filters, max_size=2),
    st.lists(filters, max_size=2),
    st.booleans(),
)
def test_columns_and_messages_agree(
    made: list[Any], allowed: list[FlowFilter], denied: list[FlowFilter], verdicts: bool
) -> None:
    world = World(policy_verdicts=verdicts, flows=256)
    observer = world.observer
    observer.take(np.concatenate(made))
    view = observer.ring.view(0, observer.ring.head)
    flows = [Flow.FromString(flow) for flow in observer.wire.flows(view, np.arange(len(view)))]
    loaded = load(flows)
    both = (
        compiled(allowed, denied, decode=observer._decode, uuids=observer.wire.uuids).mask(view).tolist(),
        compiled(allowed, denied).mask(loaded).tolist(),
    )
    assert both[0] == both[1]
    for name, column in loaded.columns.items():
        if name not in (
            "lift",
            "has",
            "egress_rule",
            "ingress_rule",
            "source",
            "destination",
            "node",
            "interface",
        ):
            assert column.tolist() == view[name].tolist(), name


@given(st.lists(some_records(), min_size=1, max_size=5))
@settings(max_examples=20, deadline=None)
def test_each_flow_is_found_by_its_uuid(made: list[Any]) -> None:
    observer = World(flows=256).observer
    observer.take(np.concatenate(made))
    view = observer.ring.view(0, observer.ring.head)
    for place, flow in enumerate(observer.wire.flows(view, np.arange(len(view)))):
        wanted = [FlowFilter(uuid=["x", Flow.FromString(flow).uuid])]
        found = compiled(wanted, decode=observer._decode, uuids=observer.wire.uuids).places(view)
        assert found.tolist() == [place]
