"""Records become words: addresses, workloads, identities, rules and reasons."""

from __future__ import annotations

from ipaddress import IPv4Address

import numpy as np
import pytest

from axoneme.core.datapath.abi import EVENT, TICK_SHIFT, AttachPoint, EventFlag, EventType, NextHop
from axoneme.core.datapath.reasons import BY_NUMBER
from axoneme.core.events.naming import Namer, address_text
from axoneme.core.events.rules import RULES, Rule
from axoneme.core.state.table import State
from axoneme.core.workloads.endpoints import ENDPOINTS, IDENTITIES, Endpoint, Identity


@pytest.fixture
def state() -> State:
    state = State([ENDPOINTS, IDENTITIES, RULES])
    state.writer("endpoints", Endpoint).upsert(
        Endpoint(id=7, name="web", namespace="production", ipv4=IPv4Address("10.0.0.1"))
    )
    state.writer("identities", Identity).upsert(Identity(number=300, labels=("k8s:app=web",)))
    state.writer("rules", Rule).upsert(
        Rule(
            id=99,
            kind="CiliumNetworkPolicy",
            namespace="production",
            name="only-web",
            direction="ingress",
            path="default-deny",
            index=-1,
            effect="default-deny",
            text="default deny, turned on by this policy",
            file="p.yaml",
            line=4,
        )
    )
    return state


def event(**fields: object) -> np.void:
    row = np.zeros(1, EVENT.dtype)
    row["saddr"], row["daddr"] = [0, 0, 0xFFFF, 0x0A000001], [0xFD000000, 0, 0, 2]
    for name, value in fields.items():
        row[name] = value
    return row[0]


def test_what_passes_as_rehearsed_has_the_reason_of_the_drop_that_it_is_not(state: State) -> None:
    named = Namer(state, BY_NUMBER).name(
        event(
            type=EventType.NEW,
            flags=EventFlag.AUDITED,
            reason=133,
            protocol=6,
            ingress_rule=99,
            next_hop=NextHop.LOCAL,
        )
    )
    assert (named["type"], named["verdict"], named["next_hop"]) == ("new", "audited", "local")
    assert (named["reason"], named["ingress_rule"]["policy"]) == ("POLICY_DENIED", "production/only-web")


def test_a_drop_names_workload_rule_and_reason(state: State) -> None:
    named = Namer(state, BY_NUMBER).name(
        event(
            type=EventType.DROP, reason=133, protocol=6, tcp_flags=2, sport=1234, dport=80, source_endpoint=7,
            source_identity=300, destination_identity=2, ingress_rule=99, attach_point=AttachPoint.from_workload,
        )
    )  # fmt: skip
    assert named["type"] == "drop"
    assert named["verdict"] == "dropped"
    assert (named["reason"], named["reason_text"]) == ("POLICY_DENIED", "Policy denied")
    assert named["source"] == {
        "address": "10.0.0.1", "identity": 300, "port": 1234, "endpoint": 7, "workload": "production/web",
        "labels": ["k8s:app=web"],
    }  # fmt: skip
    assert named["destination"] == {"address": "fd00::2", "identity": 2, "port": 80}
    assert named["ingress_rule"]["policy"] == "production/only-web"
    assert named["ingress_rule"]["text"] == "production/only-web default-deny (p.yaml:4)"
    assert named["tcp_flags"] == ["SYN"]


def test_a_close_tells_both_directions_and_how_long_it_was(state: State) -> None:
    second = 1_000_000_000
    named = Namer(state, BY_NUMBER).name(
        event(
            type=EventType.CLOSE, protocol=17, time=100 * second, created=(60 * second) >> TICK_SHIFT, packets=3,
            reply_packets=4, next_hop=NextHop.LOCAL,
        )
    )  # fmt: skip
    assert named["verdict"] == "forwarded"
    assert (named["packets"], named["reply_packets"]) == (3, 4)
    assert abs(named["seconds"] - 40) < 0.1
    assert named["next_hop"] == "local"


def test_icmp_has_a_type_and_no_ports(state: State) -> None:
    named = Namer(state, BY_NUMBER).name(event(type=EventType.NEW, protocol=1, icmp_type=8))
    assert named["icmp_type"] == 8
    assert "port" not in named["source"]


def test_unknown_numbers_are_shown_as_numbers(state: State) -> None:
    named = Namer(state, BY_NUMBER).name(event(type=EventType.DROP, reason=499, egress_rule=5))
    assert named["reason"] == "499"
    assert named["egress_rule"] == {"id": 5, "text": "rule 5"}


def test_addresses() -> None:
    assert address_text(np.array([0, 0, 0xFFFF, 0x0A000001])) == "10.0.0.1"
    assert address_text(np.array([0xFE800000, 0, 0, 1])) == "fe80::1"
