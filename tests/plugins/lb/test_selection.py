"""Who gets new connections, and what is said of the others."""

from __future__ import annotations

from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from axoneme.plugins.lb.model import Distribution, Endpoint, Protocol
from axoneme.plugins.lb.rows import backend_key
from axoneme.plugins.lb.selection import Candidate, Rule, Why, judge
from axoneme.plugins.lb.tables import BackendState

READY: dict[str, object] = {}
UNREADY = {"ready": False, "serving": False}
LEAVING = {"ready": False, "terminating": True}
GONE = {"ready": False, "serving": False, "terminating": True}


def one(number: int = 1, *, weight: int = 1, local: bool = False, **endpoint: object) -> Candidate:
    address = IPv4Address(0x0A000000 + number)
    made = Endpoint((address,), **endpoint)  # type: ignore[arg-type]
    return Candidate(backend_key(address, 80, 6), address, 80, Protocol.TCP, made, weight, local)


def reasons(*candidates: Candidate, **rule: object) -> list[Why]:
    return list(judge(candidates, Rule(**rule)).reasons)  # type: ignore[arg-type]


def test_ready_ones_are_used_and_the_others_say_why_not() -> None:
    found = reasons(one(1), one(2, **UNREADY), one(3, **LEAVING), one(4, **GONE), one(5, weight=0))
    assert found == [Why.USED, Why.UNREADY, Why.TERMINATING, Why.GONE, Why.DRAINED]
    states = [one(**which).state for which in (READY, UNREADY, LEAVING)] + [one(weight=0).state]
    assert states == [
        BackendState.ACTIVE,
        BackendState.UNREADY,
        BackendState.TERMINATING,
        BackendState.DRAINED,
    ]


def test_where_all_terminate_those_that_still_serve_are_used() -> None:
    found = reasons(one(1, **LEAVING), one(2, **GONE), one(3, **UNREADY))
    assert found == [Why.USED, Why.GONE, Why.UNREADY]


def test_addresses_that_are_published_before_they_are_ready() -> None:
    found = reasons(one(1, **UNREADY), one(2, **GONE), publish_not_ready=True)
    assert found == [Why.USED, Why.USED]


def test_a_local_policy_keeps_to_this_node_even_if_nobody_is_there() -> None:
    assert reasons(one(1, local=True), one(2), local_only=True) == [Why.USED, Why.REMOTE]
    assert reasons(one(1), one(2), local_only=True) == [Why.REMOTE, Why.REMOTE]
    leaving = one(1, local=True, **LEAVING)
    assert reasons(leaving, one(2), local_only=True) == [Why.USED, Why.REMOTE]


def test_hints_count_when_every_ready_one_has_them_and_one_is_for_here() -> None:
    a, b = one(1, zones=("a",)), one(2, zones=("b",))
    assert reasons(a, b, zone="a") == [Why.USED, Why.ZONE]
    assert reasons(a, b, zone="c") == [Why.USED, Why.USED]
    assert reasons(a, b) == [Why.USED, Why.USED]
    assert reasons(a, b, one(3), zone="a") == [Why.USED, Why.USED, Why.USED]
    assert reasons(a, b, one(3, **UNREADY), zone="a") == [Why.USED, Why.ZONE, Why.UNREADY]
    near, far = one(1, zones=("a",), nodes=("n",)), one(2, zones=("a",), nodes=("m",))
    assert reasons(near, far, zone="a", node="n") == [Why.USED, Why.NODE]
    assert reasons(near, far, zone="a", node="o") == [Why.USED, Why.USED]


def test_without_hints_a_wish_for_nearness_follows_where_backends_are() -> None:
    here, there, far = one(1, local=True, zone="a"), one(2, zone="a"), one(3, zone="b")
    close = {"distribution": Distribution.PREFER_CLOSE, "zone": "a"}
    assert reasons(here, there, far, **close) == [Why.USED, Why.USED, Why.ZONE]
    same = {"distribution": Distribution.PREFER_SAME_NODE, "zone": "a"}
    assert reasons(here, there, far, **same) == [Why.USED, Why.NODE, Why.NODE]
    assert reasons(there, far, **same) == [Why.USED, Why.ZONE]
    assert reasons(far, **same) == [Why.USED]


endpoints = st.builds(
    one,
    st.just(1),
    weight=st.integers(0, 2),
    local=st.booleans(),
    ready=st.booleans(),
    serving=st.booleans(),
    terminating=st.booleans(),
    zones=st.sampled_from([(), ("a",), ("b",)]),
    nodes=st.sampled_from([(), ("n",)]),
)
rules = st.builds(
    Rule,
    local_only=st.booleans(),
    publish_not_ready=st.booleans(),
    distribution=st.sampled_from(Distribution),
    zone=st.sampled_from(["", "a"]),
    node=st.sampled_from(["", "n"]),
)


@given(st.lists(endpoints, max_size=6), rules)
def test_hints_and_wishes_never_leave_nobody(candidates: list[Candidate], rule: Rule) -> None:
    judged = judge(candidates, rule)
    plain = judge(candidates, Rule(rule.local_only, rule.publish_not_ready))
    assert bool(judged.used) == bool(plain.used)
    assert {id(used) for used in judged.used} <= {id(used) for used in plain.used}
    for used in judged.used:
        assert used.weight
        assert used.local or not rule.local_only
