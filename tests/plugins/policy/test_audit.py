"""Rehearsed policies: what holds is as if they were not there, and what they would deny is noted."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from generators import IDENTITIES, PODS, policy_lists, subject
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from axoneme.core.errors import ResourceError
from axoneme.plugins.policy.api import describe
from axoneme.plugins.policy.cli import table
from axoneme.plugins.policy.engine import Engine
from axoneme.plugins.policy.kinds import PARSERS
from axoneme.plugins.policy.language import MODE, parse_policy
from axoneme.plugins.policy.model import Direction, Protocol
from axoneme.plugins.policy.subject import Enforcement, Settings
from axoneme.plugins.policy.tables import VerdictValue, apply, difference

PROBES = [
    (endpoint, direction, one.number, int(protocol), port)
    for endpoint, direction, one in product(list(PODS)[:3], Direction, IDENTITIES[::2])
    for protocol, port in ((Protocol.TCP, 80), (Protocol.UDP, 53), (Protocol.ICMP, 8))
]
SOME = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
objects_and_modes = policy_lists.flatmap(
    lambda objects: st.tuples(
        st.just(objects), st.lists(st.booleans(), min_size=len(objects), max_size=len(objects))
    )
)


def with_mode(value: dict[str, Any], audit: bool) -> dict[str, Any]:
    mode = {MODE: "audit"} if audit else {}
    return {**value, "metadata": {**value["metadata"], "annotations": mode}}


def engine_of(objects: list[dict[str, Any]], config: Settings | None = None) -> Engine:
    engine = Engine(config)
    for identity in IDENTITIES:
        engine.upsert_identity(identity)
    for endpoint in PODS:
        engine.upsert_subject(endpoint, subject(endpoint))
    for one in objects:
        engine.upsert_policy(parse_policy(one))
    engine.commit()
    return engine


def rule_name(engine: Engine, number: int) -> str:
    ref = engine.rules.ref(number)
    return ref.key if ref else ""


def check(engine: Engine, enforced: Engine, everything: Engine) -> None:
    """Each verdict is the enforced one, with the denial of everything beside it."""
    contradicting = enforced.errors().keys() | everything.errors().keys()
    for probe in PROBES:
        if probe[0] in contradicting:
            continue
        got, holds, would = (one.tables.lookup(*probe) for one in (engine, enforced, everything))
        assert got is not None
        assert holds is not None
        assert would is not None
        assert got.action is holds.action
        assert (got.auth, got.proxy_port, got.l7) == (holds.auth, holds.proxy_port, holds.l7)
        assert rule_name(engine, got.rule) == rule_name(enforced, holds.rule)
        denied = holds.action.allows and not would.action.allows
        assert rule_name(engine, got.audit_rule) == (rule_name(everything, would.rule) if denied else "")
        assert got.audit_action == (would.action if denied else 0)
        known = engine.verdict(*probe)
        assert known is not None
        assert (known.would is not None) is denied
        assert known.rule.key == rule_name(engine, got.rule)


@SOME
@given(objects_and_modes, st.sampled_from(Enforcement), st.booleans())
def test_a_rehearsed_policy_changes_nothing_but_the_note(
    given_: tuple[list[dict[str, Any]], list[bool]], enforcement: Enforcement, localhost: bool
) -> None:
    objects, modes = given_
    config = Settings(enforcement, localhost)
    marked = [with_mode(one, audit) for one, audit in zip(objects, modes, strict=True)]
    others = [one for one, audit in zip(objects, modes, strict=True) if not audit]
    check(engine_of(marked, config), engine_of(others, config), engine_of(objects, config))


@SOME
@given(objects_and_modes, st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=5))
def test_changing_modes_gives_the_tables_of_a_fresh_start(
    given_: tuple[list[dict[str, Any]], list[bool]], changes: list[tuple[int, bool]]
) -> None:
    objects, modes = given_
    engine = engine_of([with_mode(one, audit) for one, audit in zip(objects, modes, strict=True)])
    kernel = engine.tables.copy()
    for which, audit in changes:
        if which < len(objects):
            modes[which] = audit
            engine.upsert_policy(parse_policy(with_mode(objects[which], audit)))
            for write in engine.commit().writes():
                apply(kernel, write)
    fresh = engine_of([with_mode(one, audit) for one, audit in zip(objects, modes, strict=True)])
    if not fresh.errors():
        assert difference(kernel, fresh.tables).is_empty


@SOME
@given(policy_lists)
def test_a_whole_agent_can_rehearse(objects: list[dict[str, Any]]) -> None:
    for enforcement in (Enforcement.DEFAULT, Enforcement.ALWAYS):
        engine = engine_of(objects, Settings(enforcement, audit=True))
        nothing = engine_of([], Settings(Enforcement.NEVER))
        everything = engine_of(objects, Settings(enforcement))
        for probe in PROBES:
            got, would = engine.tables.lookup(*probe), everything.tables.lookup(*probe)
            assert got is not None
            assert would is not None
            assert got.action is nothing.tables.lookup(*probe).action  # type: ignore[union-attr]
            if probe[0] not in everything.errors():
                assert bool(got.audit_rule) is not would.action.allows


STRICT = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumNetworkPolicy",
    "metadata": {"name": "strict", "namespace": "blue"},
    "spec": {
        "endpointSelector": {"matchLabels": {"app": "a"}},
        "ingress": [
            {
                "fromEndpoints": [{"matchLabels": {"app": "b"}}],
                "toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}]}],
            }
        ],
        "ingressDeny": [{"fromEndpoints": [{"matchLabels": {"app": "c"}}]}],
    },
}
A, B, C = 256, 257, 258  # in the namespace blue


def ingress(engine: Engine, peer: int, port: int = 80) -> VerdictValue:
    found = engine.tables.lookup(A, Direction.INGRESS, peer, 6, port)
    assert found is not None
    return found


@pytest.mark.parametrize("config", [Settings(audit_namespaces=frozenset({"blue"})), Settings(audit=True)])
def test_a_namespace_or_the_agent_rehearses_what_says_nothing_of_it(config: Settings) -> None:
    engine = engine_of([STRICT], config)
    assert ingress(engine, C).action.allows
    assert rule_name(engine, ingress(engine, C).audit_rule).endswith("ingressDeny[0]")
    assert rule_name(engine, ingress(engine, B, 81).audit_rule).endswith("default-deny")
    assert not ingress(engine, B, 80).audit_rule
    assert not engine.tables.subjects[A].enforced(Direction.INGRESS)


def test_another_namespace_is_enforced() -> None:
    engine = engine_of([STRICT], Settings(audit_namespaces=frozenset({"green"})))
    assert not ingress(engine, C).action.allows


def test_nothing_is_resolved_twice_where_nothing_is_rehearsed() -> None:
    engine = engine_of([STRICT])
    policy = engine.policy_of(A, Direction.INGRESS)
    assert policy is not None
    assert policy.rehearsed is None
    assert all(not value.audit_rule for rows in engine.tables.verdicts.values() for value in rows.values())


def test_people_see_what_would_be_denied() -> None:
    engine = engine_of([with_mode(STRICT, audit=True)])
    answer = describe(engine, {A: "blue/a"}, "blue/a")
    assert {rule["mode"] for rule in answer["rules"] if rule.get("policy")} == {"audit"}
    text = table(answer)
    assert "rehearsed: deny" in text
    assert "CiliumNetworkPolicy/blue/strict spec.ingressDeny[0]" in text


@pytest.mark.parametrize("kind", ["CiliumNetworkPolicy", "NetworkPolicy"])
def test_a_mode_that_there_is_not_is_refused_with_its_field(kind: str) -> None:
    value: dict[str, Any] = {
        "kind": kind,
        "metadata": {"name": "a", "namespace": "b", "annotations": {MODE: "Audit"}},
        "spec": {"podSelector": {}} if kind == "NetworkPolicy" else STRICT["spec"],
    }
    with pytest.raises(ResourceError, match="audit, enforce") as caught:
        PARSERS[kind](value)
    assert "metadata.annotations" in str(caught.value)
    value["metadata"]["annotations"][MODE] = "audit"
    assert PARSERS[kind](value).audit  # type: ignore[union-attr]


def test_a_contradiction_of_what_is_rehearsed_touches_nothing_else() -> None:
    def asks(mode: str) -> dict[str, Any]:
        rule = {**STRICT["spec"]["ingress"][0], "authentication": {"mode": mode}}
        return {
            **STRICT,
            "metadata": {"name": mode, "namespace": "blue"},
            "spec": {**STRICT["spec"], "ingress": [rule]},
        }

    engine = engine_of([asks("required"), with_mode(asks("disabled"), audit=True)])
    assert A in engine.errors()
    assert ingress(engine, B).action.allows
    assert not ingress(engine, C).action.allows
