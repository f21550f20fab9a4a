"""Laws of the decision tables: they say what the language says, whatever way they were reached."""

from __future__ import annotations

from itertools import product
from typing import Any

import naive
from generators import IDENTITIES, PODS, PORTS, flows, policies, policy_lists, subject
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from axoneme.plugins.policy.engine import Engine
from axoneme.plugins.policy.language import parse_policy
from axoneme.plugins.policy.model import Auth, Direction, Protocol
from axoneme.plugins.policy.subject import Enforcement, Settings
from axoneme.plugins.policy.tables import Tables, VerdictValue, apply, difference

SLOW = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
LABELS = {one.number: list(one.labels) for one in IDENTITIES}
NAMES = {Protocol.ICMPV6: "ICMPv6"}


def fresh(objects: list[dict[str, Any]], config: Settings | None = None, **options: Any) -> Engine:
    engine = Engine(config, **options)
    for identity in IDENTITIES:
        engine.upsert_identity(identity)
    for endpoint in PODS:
        engine.upsert_subject(endpoint, subject(endpoint))
    for one in objects:
        engine.upsert_policy(parse_policy(one))
    engine.commit()
    return engine


def answer(engine: Engine, found: VerdictValue | None, enforced: bool) -> dict[str, Any]:
    if found is None or not found.action.allows:
        return {"verdict": "deny", "enforced": enforced, "auth": "none", "l7": "none"}
    l7 = engine.l7[found.l7].redirect if found.l7 else "none"
    auth = Auth(found.auth).text if found.auth else "none"
    return {"verdict": "allow", "enforced": enforced, "auth": auth, "l7": l7}


@SLOW
@given(
    policy_lists,
    st.lists(flows, min_size=10, max_size=40),
    st.sampled_from(Enforcement),
    st.booleans(),
)
def test_the_three_lookups_say_what_the_naive_evaluator_says(
    objects: list[dict[str, Any]], packets: list[Any], enforcement: Enforcement, localhost: bool
) -> None:
    engine = fresh(objects, Settings(enforcement, localhost))
    evaluator = naive.Evaluator(objects, naive.Config(enforcement.value, localhost))
    for endpoint, peer, side, protocol, port in packets:
        number, direction = Protocol[protocol], Direction(side)
        want = evaluator.side(LABELS[endpoint], LABELS[peer], side, NAMES.get(number, protocol), port)
        note(f"{endpoint} {LABELS[endpoint]} {side} {LABELS[peer]} {port}/{protocol}")
        if want["verdict"] == "error":
            assert endpoint in engine.errors()
            continue
        found = engine.tables.lookup(endpoint, direction, peer, int(number), port)
        assert answer(engine, found, engine.tables.subjects[endpoint].enforced(direction)) == want
        verdict = engine.verdict(endpoint, direction, peer, int(number), port)
        assert verdict is not None
        assert found is not None
        assert found.rule == engine.rules.number(verdict.rule)


changes = st.one_of(
    st.tuples(st.just("policy"), st.integers(0, 3), policies()),
    st.tuples(st.just("no policy"), st.integers(0, 3), st.none()),
    st.tuples(st.just("endpoint"), st.sampled_from(sorted(PODS)), st.booleans()),
    st.tuples(st.just("identity"), st.sampled_from(range(len(IDENTITIES))), st.booleans()),
)


class World:
    """What an engine was told, to tell it to another one."""

    def __init__(self, hash_bits: int = 32) -> None:
        self.engine = Engine(hash_bits=hash_bits)
        self.hash_bits = hash_bits
        self.policies: dict[str, dict[str, Any]] = {}
        self.endpoints: set[int] = set()
        self.identities: set[int] = set()
        for index in range(len(IDENTITIES)):
            self.change(("identity", index, True))
        for endpoint in PODS:
            self.change(("endpoint", endpoint, True))

    def change(self, change: tuple[Any, ...]) -> None:
        kind, which, value = change
        if kind == "policy":
            self._remove(which)
            named = {**value, "metadata": {**value["metadata"], "name": f"p{which}"}}
            self.policies[which] = named
            self.engine.upsert_policy(parse_policy(named))
        elif kind == "no policy":
            self._remove(which)
        elif kind == "endpoint":
            (self.endpoints.add if value else self.endpoints.discard)(which)
            if value:
                self.engine.upsert_subject(which, subject(which))
            else:
                self.engine.remove_subject(which)
        else:
            (self.identities.add if value else self.identities.discard)(which)
            if value:
                self.engine.upsert_identity(IDENTITIES[which])
            else:
                self.engine.remove_identity(IDENTITIES[which].number)

    def _remove(self, which: str) -> None:
        old = self.policies.pop(which, None)
        if old is not None:
            self.engine.remove_policy(parse_policy(old).key)

    def anew(self) -> Engine:
        engine = Engine(hash_bits=self.hash_bits)
        for one in self.policies.values():
            engine.upsert_policy(parse_policy(one))
        for endpoint in self.endpoints:
            engine.upsert_subject(endpoint, subject(endpoint))
        for index in self.identities:
            engine.upsert_identity(IDENTITIES[index])
        engine.commit()
        return engine


def without_contradictions(world: World) -> bool:
    """A contradiction keeps the policy from before, which a fresh start does not know."""
    return not world.engine.errors()


@SLOW
@given(st.lists(st.lists(changes, min_size=1, max_size=3), min_size=1, max_size=6))
def test_a_history_of_changes_gives_the_tables_of_a_fresh_start(batches: list[list[tuple[Any, ...]]]) -> None:
    world = World()
    world.engine.commit()
    kernel = world.engine.tables.copy()
    for batch in batches:
        for change in batch:
            world.change(change)
        for write in world.engine.commit().writes():
            apply(kernel, write)
        assert kernel == world.engine.tables
    if without_contradictions(world):
        assert kernel == world.anew().tables
        assert difference(kernel, world.anew().tables).is_empty


PROBES = [
    (endpoint, direction, one.number, int(protocol), port)
    for endpoint, direction, one in product(PODS, Direction, IDENTITIES[::2])
    for protocol, port in ((Protocol.TCP, PORTS[1]), (Protocol.UDP, 53), (Protocol.ICMP, 8))
]


def verdicts(tables: Tables) -> dict[tuple[Any, ...], bool]:
    return {probe: (found := tables.lookup(*probe)) is not None and found.action.allows for probe in PROBES}


def assert_undisturbed(before: Tables, writes: Any) -> None:
    """After each single write every flow has its verdict of before or of afterwards."""
    now, after = before.copy(), before.copy()
    writes = list(writes)
    for write in writes:
        apply(after, write)
    old, new = verdicts(before), verdicts(after)
    stable = [probe for probe in PROBES if old[probe] == new[probe]]
    for write in writes:
        apply(now, write)
        for probe in stable:
            found = now.lookup(*probe)
            assert (found is not None and found.action.allows) == old[probe], (write, probe)


FEW = settings(SLOW, max_examples=40)


@FEW
@given(
    st.lists(changes, min_size=2, max_size=5),
    st.lists(changes, min_size=1, max_size=3),
    st.sampled_from((6, 8, 32)),
)
def test_no_single_write_disturbs_a_flow(first: list[Any], second: list[Any], hash_bits: int) -> None:
    """Also where numbers collide: a number is never given a new meaning while the old one may still be looked up."""
    world = World(hash_bits if hash_bits > 6 else 9)
    for change in first:
        world.change(change)
    world.engine.commit()
    before = world.engine.tables.copy()
    gone = {which for kind, which, value in second if kind == "endpoint" and not value}
    for change in second:
        if change[0] != "endpoint" or change[1] not in gone:
            world.change(change)
    assert_undisturbed(before, world.engine.commit().writes())


@FEW
@given(policy_lists, policy_lists)
def test_no_single_write_of_a_restart_disturbs_a_flow(old: list[Any], new: list[Any]) -> None:
    before, after = fresh(old).tables, fresh(new).tables
    assert_undisturbed(before, difference(before, after).writes())


def test_a_restart_with_the_same_state_writes_nothing() -> None:
    first, second = (fresh(list(_SHARED)) for _ in range(2))
    assert difference(first.tables, second.tables).is_empty


_SHARED: tuple[dict[str, Any], ...] = (
    {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "shared", "namespace": "blue"},
        "spec": {
            "endpointSelector": {},
            "ingress": [
                {
                    "fromEndpoints": [{"matchLabels": {"app": "a"}}],
                    "toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}]}],
                }
            ],
        },
    },
)


def test_subjects_with_the_same_rules_share_their_policy() -> None:
    engine = fresh(list(_SHARED))
    blue = [endpoint for endpoint, labels in PODS.items() if "k8s:io.kubernetes.pod.namespace=blue" in labels]
    assert len({engine.tables.subjects[endpoint].ingress for endpoint in blue}) == 1


def test_a_new_identity_is_one_write_per_policy_that_mentions_it() -> None:
    engine = fresh(list(_SHARED))
    from axoneme.plugins.policy.selectors import Identity

    labels = ("k8s:app=a", "k8s:io.kubernetes.pod.namespace=blue", "k8s:version=2")
    engine.upsert_identity(Identity(999, labels))
    plan = engine.commit()
    assert plan.size == 1
    assert list(plan.set_peers[engine.tables.subjects[256].ingress]) == [999]
