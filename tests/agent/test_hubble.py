"""Hubble over real traffic: what happened between two workloads under policy is what its flows say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from scenes import CLOSED, OPEN, Scene, policy, scene_of

from axoneme.core.testing.node import Placed
from axoneme.plugins.hubble.proto.flow_pb2 import Endpoint, Flow, FlowFilter
from axoneme.plugins.hubble.proto.observer_pb2 import GetFlowsRequest
from axoneme.plugins.hubble.proto.observer_pb2_grpc import ObserverStub

pytestmark = pytest.mark.kernel

VALUES: dict[str, Any] = {
    "plugins": {"enabled": ["policy", "hubble"], "hubble": {"flows": 8192}},
    "datapath": {"sample_interval": 0.4, "timeouts": {"gc_interval": 0.2}},
}
DROP, TRACE, VERDICT = 1, 4, 5
ESTABLISHED = 2


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """With traffic, until a sample of a connection came."""
    with scene_of(VALUES, text=policy(OPEN)) as made, made.traffic():
        made.node.until(
            lambda: any(sample(flow) for flow in flows(made, destination_port=[str(OPEN)])), "samples"
        )
        yield made


def flows(scene: Scene, *, first: int = 0, **chosen: Any) -> list[Flow]:
    socket = scene.node.socket.with_name("hubble.sock")
    request = GetFlowsRequest(first=bool(first), number=first)
    if chosen:
        request.whitelist.append(FlowFilter(**chosen))
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        return [answer.flow for answer in ObserverStub(channel).GetFlows(request, timeout=20)]


def ended(flow: Flow) -> bool:
    return flow.l4.TCP.flags.FIN or flow.l4.TCP.flags.RST


def sample(flow: Flow) -> bool:
    return flow.trace_reason == ESTABLISHED and flow.l4.HasField("TCP") and not ended(flow)


def who(end: Endpoint) -> tuple[str, str]:
    return end.namespace, end.pod_name


def address(placed: Placed, version: str) -> str:
    return placed.addresses[version == "IPv6"]


@pytest.mark.parametrize("version", ["IPv4", "IPv6"])
def test_what_is_allowed(scene: Scene, version: str) -> None:
    found = flows(
        scene, ip_version=[version], protocol=["tcp"], destination_port=[str(OPEN)], verdict=["FORWARDED"]
    )
    traces = [flow for flow in found if flow.event_type.type == TRACE]
    assert traces
    for flow in found:
        assert (who(flow.source), who(flow.destination)) == (("default", "client"), ("default", "server"))
        ends = address(scene.client, version), address(scene.server, version)
        assert (flow.IP.source, flow.IP.destination) == ends
        assert not flow.is_reply.value
    for flow in traces:
        assert [p.name for p in flow.egress_allowed_by] == ["client"]
        assert [p.name for p in flow.ingress_allowed_by] == ["server"]


@pytest.mark.parametrize("version", ["IPv4", "IPv6"])
def test_what_is_denied_by_default(scene: Scene, version: str) -> None:
    found = flows(scene, ip_version=[version], destination_port=[str(CLOSED)])
    assert {(flow.verdict, flow.event_type.type) for flow in found} == {(2, DROP), (2, VERDICT)}
    for flow in found:
        assert (flow.drop_reason_desc, flow.traffic_direction) == (133, 2)
        assert [(p.name, p.kind) for p in flow.egress_denied_by] == [("client", "CiliumNetworkPolicy")]
        assert not flow.ingress_denied_by


def test_verdicts_ends_and_samples(scene: Scene) -> None:
    verdicts = flows(scene, event_type=[{"type": VERDICT}], destination_port=[str(OPEN)])
    assert {(flow.traffic_direction, flow.policy_match_type) for flow in verdicts} == {(1, 2), (2, 2)}
    later = [
        flow
        for flow in flows(scene, destination_port=[str(OPEN)], protocol=["tcp"])
        if flow.trace_reason == ESTABLISHED
    ]
    assert {ended(flow) for flow in later} == {True, False}
    assert {who(flow.source)[1] for flow in later} == {"client"}


def test_different_filters_find_the_same(scene: Scene) -> None:
    ids = {flow.uuid for flow in flows(scene, first=500)}
    assert len(ids) == 500
    for one, other in (
        ({"source_label": ["app=client"]}, {"source_pod": ["default/client"]}),
        ({"destination_label": ["app=server,!absent"]}, {"destination_ip": list(scene.server.addresses)}),
        ({"verdict": ["DROPPED"]}, {"event_type": [{"type": DROP}, {"type": VERDICT}], "drop_reason_desc": ["POLICY_DENIED"]}),
        ({"protocol": ["udp"]}, {"experimental": {"cel_expression": ["has(_flow.l4.UDP)"]}}),
        ({"interface": [{}]}, {"node_name": ["default/*"], "interface": [{}]}),
    ):  # fmt: skip
        chosen = [{flow.uuid for flow in flows(scene, **fields)} & ids for fields in (one, other)]
        assert chosen[0] == chosen[1] != set()
