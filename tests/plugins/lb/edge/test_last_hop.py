"""Packets whose time is up here: the stack gets them as they were sent, so that what it says is about the service."""

from __future__ import annotations

import pytest
from edge_world import Edge, Xdp
from packet_world import dropped, words

from axoneme.core.testing.datapath import Action
from axoneme.core.testing.packets import ACK, ICMP_TIME_EXCEEDED, ICMPV6_TIME_EXCEEDED, SYN, intact, parse
from axoneme.plugins.lb.maps import Scope

pytestmark = pytest.mark.kernel


@pytest.fixture
def served(edge: Edge) -> Edge:
    """TCP 80 from outside and from workloads, on b:8080."""
    edge.backend(1, "b", 8080)
    edge.service(1)
    services = edge.bench.map(f"lb_services{edge.family}")
    key = {"address": {"a": words(edge.vip)}, "port": 80, "protocol": 6, "scope": int(Scope.EXTERNAL)}
    services.update({**key, "scope": int(Scope.INTERNAL)}, services.lookup(key))
    return edge


@pytest.mark.parametrize("flags", [SYN, ACK], ids=["first", "established"])
def test_from_a_workload(served: Edge, flags: int) -> None:
    if flags == ACK:
        assert served.send(served.tcp("a", served.vip, SYN)).action is Action.REDIRECT
    frame = served.tcp("a", served.vip, flags, ttl=1)
    outcome = served.send(frame)
    assert (outcome.action, outcome.frame) == (Action.PASS, frame)
    kind = ICMP_TIME_EXCEEDED if served.family == 4 else ICMPV6_TIME_EXCEEDED
    told = served.deliver(served.error("gateway", "a", frame, kind=kind))
    assert told.action is Action.REDIRECT
    assert intact(told.frame)
    assert parse(told.frame).payload == parse(served.error("gateway", "a", frame, kind=kind)).payload


def test_from_outside(served: Edge) -> None:
    frame = served.tcp("world", served.vip, SYN, ttl=1)
    assert served.enter(frame).verdict is Xdp.PASS
    outcome = served.arrive(frame)
    assert (outcome.action, outcome.frame) == (Action.PASS, frame)
    assert served.arrive(served.tcp("world", served.vip, SYN, ttl=2)).action is Action.REDIRECT


def test_to_the_world(edge: Edge) -> None:
    frame = edge.tcp("a", "world", SYN, ttl=1)
    outcome = edge.send(frame)
    assert (outcome.action, outcome.frame) == (Action.PASS, frame)


def test_an_answer_to_the_node_is_not_given_to_the_node(edge: Edge) -> None:
    """The stack would take it for its own, and reset the connection."""
    edge.bench.ipcache(f"{edge.node}/{32 if edge.family == 4 else 128}", 1)
    sent = edge.send(edge.tcp("a", "world", SYN, dport=443))
    port = parse(sent.frame).layers[2].sport  # type: ignore[attr-defined]
    answer = edge.tcp("world", edge.node, SYN | ACK, sport=443, dport=port, ttl=1)
    assert dropped(edge.arrive(answer), "TTL_EXCEEDED")


def test_an_error_that_nobody_asked_for_is_refused(served: Edge) -> None:
    """Only about what the workload sent, and only from the host itself."""
    frame = served.tcp("a", served.vip, SYN, ttl=1)
    assert served.send(frame).action is Action.PASS
    other = served.tcp("a", served.vip, SYN, sport=5, ttl=1)
    unknown = "UNKNOWN_ICMPV4_CODE" if served.family == 4 else "UNKNOWN_ICMPV6_CODE"
    assert dropped(served.deliver(served.error("gateway", "a", other)), unknown)
    foreign = served.deliver(served.error("gateway", "a", frame), ingress_ifindex=served.bench.link("uplink"))
    assert dropped(foreign, unknown)
