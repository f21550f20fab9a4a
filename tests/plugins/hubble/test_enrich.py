"""From the kernel's records to the flows that clients see."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Any

import attrs
import numpy as np
import pytest
from flow_world import ACK, FIN, RST, SYN, World, record

from axoneme.core.datapath.abi import EventFlag, EventType
from axoneme.core.records import TableSpec
from axoneme.plugins.hubble.proto.flow_pb2 import Flow, FlowFilter

PLAIN = {"policy_verdicts": False}


async def one(world: World, made: Any) -> Flow:
    world.observer.take(made)
    return (await world.flows())[-1]


async def test_a_new_connection_in_full() -> None:
    world = World(**PLAIN)
    flow = await one(world, record(ingress_rule=7, egress_rule=9))
    assert (flow.verdict, flow.Type, flow.node_name) == (1, 1, "default/node1")
    assert (flow.IP.source, flow.IP.destination, flow.IP.ipVersion) == ("10.0.0.1", "10.0.0.2", 1)
    assert (flow.l4.TCP.source_port, flow.l4.TCP.destination_port) == (40000, 8080)
    assert [field.name for field, _ in flow.l4.TCP.flags.ListFields()] == ["SYN"]
    source, destination = flow.source, flow.destination
    assert (source.ID, source.identity, source.namespace, source.pod_name) == (1, 300, "shop", "web")
    assert (destination.ID, destination.pod_name, destination.cluster_name) == (2, "api", "default")
    assert "k8s:app=api" in destination.labels
    assert [(w.name, w.kind) for w in source.workloads] == [("web", "Workload")]
    assert (flow.event_type.type, flow.event_type.sub_type, flow.trace_observation_point) == (4, 0, 101)
    assert (flow.traffic_direction, flow.trace_reason, flow.reply) == (1, 1, False)
    assert flow.HasField("is_reply")
    assert not flow.is_reply.value
    assert (flow.interface.index, flow.interface.name) == (1001, "axo1")
    assert [(p.name, p.namespace, p.kind) for p in flow.ingress_allowed_by] == [
        ("allow-web", "shop", "CiliumNetworkPolicy")
    ]
    assert [p.name for p in flow.egress_allowed_by] == ["careful"]
    assert not flow.ingress_denied_by
    assert not flow.egress_denied_by
    assert flow.Summary == "TCP Flags: SYN"
    assert len(flow.uuid) == 36
    assert flow.uuid[14] == "4"
    (answer,) = await world.ask()
    assert (answer.node_name, answer.time) == (flow.node_name, flow.time)


@pytest.mark.parametrize(
    ("fields", "direction", "sub_type", "point"),
    [
        ({}, 1, 0, 101),
        ({"destination_endpoint": 0, "destination_identity": 2, "next_hop": 0}, 2, 3, 3),
        ({"destination_endpoint": 0, "destination_identity": 2, "next_hop": 2}, 2, 11, 11),
        ({"source_endpoint": 0, "source_identity": 2, "attach_point": 3}, 1, 0, 101),
        ({"next_hop": 3}, 2, 1, 1),
        ({"next_hop": 3, "source_endpoint": 0, "source_identity": 2, "attach_point": 3}, 1, 1, 1),
    ],
)
async def test_where_it_was_seen(fields: dict[str, Any], direction: int, sub_type: int, point: int) -> None:
    flow = await one(World(**PLAIN), record(**fields))
    assert (flow.traffic_direction, flow.event_type.sub_type, flow.trace_observation_point) == (
        direction,
        sub_type,
        point,
    )


async def test_a_drop_names_the_policy_of_a_default() -> None:
    world = World(**PLAIN)
    flow = await one(world, record(EventType.DROP, reason=133, egress_rule=9, ingress_rule=8))
    assert (flow.verdict, flow.drop_reason, flow.drop_reason_desc) == (2, 133, 133)
    assert (flow.event_type.type, flow.event_type.sub_type) == (1, 133)
    assert not flow.HasField("is_reply")
    assert flow.traffic_direction == 1
    assert [p.name for p in flow.ingress_denied_by] == ["closed"]
    assert [p.name for p in flow.egress_allowed_by] == ["careful"]
    flow = await one(world, record(EventType.DROP, reason=133, egress_rule=8))
    assert flow.traffic_direction == 2
    assert [p.name for p in flow.egress_denied_by] == ["closed"]
    flow = await one(world, record(EventType.DROP, reason=300, egress_rule=9, ingress_rule=7))
    assert (flow.drop_reason_desc, flow.traffic_direction) == (300, 2)
    assert not flow.ingress_denied_by
    assert len(flow.ingress_allowed_by) == 1


async def test_verdicts_of_policies_are_flows_of_their_own() -> None:
    world = World()
    world.observer.take(record(egress_rule=9, ingress_rule=7))
    egress, ingress, trace = await world.flows()
    assert [flow.event_type.type for flow in (egress, ingress, trace)] == [5, 5, 4]
    assert (egress.traffic_direction, ingress.traffic_direction) == (2, 1)
    assert (egress.policy_match_type, ingress.policy_match_type, trace.policy_match_type) == (1, 2, 0)
    assert [p.name for p in egress.egress_allowed_by] == ["careful"]
    assert not egress.ingress_allowed_by
    assert not egress.is_reply.value
    assert egress.HasField("is_reply")
    times = [flow.time.ToNanoseconds() for flow in (egress, ingress, trace)]
    assert times == sorted(set(times))
    assert len({flow.uuid for flow in (egress, ingress, trace)}) == 3
    world.observer.take(record(EventType.DROP, reason=133, egress_rule=9, ingress_rule=8))
    egress, ingress, drop = (await world.flows())[3:]
    assert [flow.verdict for flow in (egress, ingress, drop)] == [1, 2, 2]
    assert (ingress.drop_reason_desc, ingress.policy_match_type) == (133, 0)
    assert [p.name for p in ingress.ingress_denied_by] == ["closed"]
    assert not ingress.HasField("is_reply")
    world.observer.take(record(flags=EventFlag.AUDITED, reason=133, ingress_rule=8))
    audited, trace = (await world.flows())[6:]
    assert (audited.verdict, trace.verdict) == (4, 1)
    assert [p.name for p in audited.ingress_denied_by] == ["closed"]
    world.observer.take(record(flags=EventFlag.AUDITED, reason=133, egress_rule=9, ingress_rule=8))
    assert [flow.verdict for flow in (await world.flows())[8:]] == [1, 4, 1]


async def test_what_goes_to_a_proxy_was_redirected() -> None:
    world = World()
    world.observer.take(record(ingress_rule=7, next_hop=3))
    assert [(flow.event_type.type, flow.verdict) for flow in await world.flows()] == [(5, 5), (4, 1)]


async def test_nobodys_rule_makes_no_verdict() -> None:
    world = World()
    world.observer.take(record())
    world.observer.take(record(EventType.DROP, reason=300))
    world.observer.take(record(EventType.CLOSE, ingress_rule=7))
    assert [flow.event_type.type for flow in await world.flows()] == [4, 1, 4]


async def test_a_close_is_told_from_the_side_that_opened() -> None:
    world = World(**PLAIN)
    turned = {
        "source_endpoint": 2, "destination_endpoint": 1, "source_identity": 301, "destination_identity": 300,
        "sport": 8080, "dport": 40000, "saddr": (0, 0, 0xFFFF, 0x0A000002), "daddr": (0, 0, 0xFFFF, 0x0A000001),
    }  # fmt: skip
    world.observer.take(record(EventType.CLOSE, tcp_flags=SYN | ACK | FIN))
    world.observer.take(record(EventType.CLOSE, reply=1, tcp_flags=SYN | RST, **turned))
    one, other = await world.flows()
    assert (one.source, one.destination, one.IP) == (other.source, other.destination, other.IP)
    assert (one.l4.TCP.source_port, other.l4.TCP.source_port) == (40000, 40000)
    assert (one.Summary, other.Summary) == ("TCP Flags: ACK, FIN", "TCP Flags: ACK, RST")
    assert (one.trace_reason, one.traffic_direction, other.traffic_direction) == (2, 1, 1)
    assert not other.is_reply.value


async def test_samples_and_translations() -> None:
    world = World(**PLAIN)
    world.observer.take(record(EventType.UPDATE, tcp_flags=SYN))
    world.observer.take(record(EventType.TRANSLATE))
    sample, translated = await world.flows()
    assert (sample.trace_reason, sample.Summary, sample.event_type.type) == (2, "TCP Flags: ACK", 4)
    assert (translated.Type, translated.verdict, translated.event_type.type) == (3, 7, 7)
    assert (translated.sock_xlate_point, translated.Summary) == (2, "TCP")


async def test_other_protocols() -> None:
    world = World(**PLAIN)
    six = (0x20010DB8, 0, 0, 1)
    world.observer.take(record(protocol=17))
    world.observer.take(record(protocol=1, icmp_type=8, tcp_flags=0))
    world.observer.take(record(protocol=58, family=6, icmp_type=1, tcp_flags=4, saddr=six, daddr=six))
    world.observer.take(record(protocol=132))
    world.observer.take(record(protocol=47))
    udp, echo, unreachable, sctp, other = await world.flows()
    assert (udp.l4.UDP.destination_port, udp.Summary, udp.l4.HasField("TCP")) == (8080, "UDP", False)
    assert (echo.l4.ICMPv4.type, echo.Summary) == (8, "ICMPv4 EchoRequest")
    assert (unreachable.l4.ICMPv6.type, unreachable.l4.ICMPv6.code) == (1, 4)
    assert unreachable.Summary == "ICMPv6 DestinationUnreachable(PortUnreachable)"
    assert (unreachable.IP.source, unreachable.IP.ipVersion) == ("2001:db8::1", 2)
    assert (sctp.l4.SCTP.source_port, sctp.Summary) == (40000, "SCTP")
    assert (other.l4.WhichOneof("protocol"), other.Summary) == (None, "IPv4")


async def test_what_changes_later_does_not_change_old_flows() -> None:
    world = World(**PLAIN)
    world.observer.take(record())
    world.workload(1, "web-canary", 302)
    world.observer.take(record(source_identity=302))
    world.endpoints.delete(1)
    world.identities.delete(302)
    world.observer.take(record(EventType.CLOSE, source_identity=302))
    world.workload(1, "other", 303)
    world.observer.take(record(source_identity=303))
    flows = await world.flows()
    assert [flow.source.pod_name for flow in flows] == ["web", "web-canary", "web-canary", "other"]
    assert [flow.source.identity for flow in flows] == [300, 302, 302, 303]
    assert "k8s:app=web-canary" in flows[2].source.labels


async def test_a_policy_that_is_gone_stays_known() -> None:
    world = World(**PLAIN)
    world.observer.take(record(ingress_rule=7))
    assert (await world.flows())[0].ingress_allowed_by[0].name == "allow-web"
    world.rules.delete(7)
    assert (await world.flows())[0].ingress_allowed_by[0].name == "allow-web"


async def test_strangers() -> None:
    world = World(**PLAIN)
    flow = await one(world, record(source_endpoint=0, source_identity=2, attach_point=3))
    assert (flow.source.ID, flow.source.identity, list(flow.source.labels)) == (0, 2, ["reserved:world"])
    flow = await one(world, record(source_endpoint=9, source_identity=999))
    assert (flow.source.ID, flow.source.identity, flow.source.pod_name) == (9, 999, "")


@attrs.frozen
class Frontend:
    address: Any
    port: int
    protocol: str
    number: int


@attrs.frozen
class Row:
    namespace: str
    name: str
    frontends: tuple[Frontend, ...]


async def test_services() -> None:
    """By the address, and where that was exchanged, by the number of the service."""
    world = World(**PLAIN)
    world.observer.take(record(service=5))
    world.state.declare(TableSpec(name="services", row=Row, key=("namespace", "name")))
    table = world.state.writer("services", Row)
    addresses = IPv4Address("10.0.0.2"), IPv6Address("2001:db8::2")
    table.upsert(
        Row("shop", "api", (Frontend(addresses[0], 8080, "TCP", 4), Frontend(addresses[1], 53, "UDP", 6)))
    )
    table.upsert(Row("shop", "virtual", (Frontend(IPv4Address("10.96.0.1"), 80, "TCP", 5),)))
    six = (0x20010DB8, 0, 0, 2)
    for fields in (
        {}, {"dport": 8081}, {"protocol": 17}, {"service": 5, "dport": 1}, {"service": 99},
        {"family": 6, "protocol": 17, "saddr": six, "sport": 53, "daddr": six},
        {"service": 5, "reply": 1, "kind": EventType.DROP, "reason": 134, "dport": 1},
    ):  # fmt: skip
        world.observer.take(record(**fields))
    flows = await world.flows()
    found = [(flow.source_service.name, flow.destination_service.name) for flow in flows]
    assert found == [
        ("", ""),
        ("", "api"),
        ("", ""),
        ("", ""),
        ("", "virtual"),
        ("", "api"),
        ("api", ""),
        ("virtual", ""),
    ]
    assert flows[1].destination_service.namespace == "shop"
    chosen = await world.flows(whitelist=[FlowFilter(destination_service=["shop/virt"])])
    assert [flow.uuid for flow in chosen] == [flows[4].uuid]
    table.delete(("shop", "api"))
    world.observer.take(record())
    last = (await world.flows())[-1]
    assert (last.destination_service.name, last.HasField("destination_service")) == ("", False)


async def test_the_byte_order_of_an_array_does_not_matter() -> None:
    """numpy turns big-endian words round when arrays are put together."""
    world = World(**PLAIN)
    together = np.concatenate([record(), record()])
    assert together.dtype != record().dtype
    world.observer.take(together)
    found = {(flow.IP.source, flow.IP.destination, flow.l4.TCP.source_port) for flow in await world.flows()}
    assert found == {("10.0.0.1", "10.0.0.2", 40000)}
