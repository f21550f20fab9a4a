"""What the real program makes of a rehearsed policy: the packet passes, the event says what would have happened."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from generators import PODS
from test_audit import STRICT, A, B, C, with_mode
from test_kernel import _stages, frame

from axoneme.core.datapath.abi import EventFlag, EventType
from axoneme.core.datapath.reasons import AUDITED, REASONS
from axoneme.core.testing.datapath import Action, DatapathBench, Outcome
from axoneme.plugins.policy.engine import Engine
from axoneme.plugins.policy.language import parse_policy
from axoneme.plugins.policy.maps import PolicyMaps, specs
from axoneme.plugins.policy.model import Protocol
from axoneme.plugins.policy.selectors import Identity
from axoneme.plugins.policy.subject import Subject

pytestmark = pytest.mark.kernel

LOCAL = dict(enumerate((A, B, C), 1))
NUMBERS = {identity: number for number, identity in LOCAL.items()}
REASON = {reason.number: reason.name for reason in REASONS}
TALKATIVE = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumNetworkPolicy",
    "metadata": {"name": "talkative", "namespace": "blue"},
    "spec": {
        "endpointSelector": {"matchLabels": {"app": "b"}},
        "egress": [{"toEndpoints": [{"matchLabels": {"app": "c"}}]}],
    },
}


class Rehearsal:
    """Workloads A, B and C, and the policies of a test."""

    def __init__(self, bench: DatapathBench) -> None:
        self.bench = bench
        self.engine = Engine()
        self.maps = PolicyMaps(*(bench.map(f"policy_{one}") for one in ("subjects", "peers", "verdicts")))
        self._port = 20_000
        for number, identity in LOCAL.items():
            self.engine.upsert_identity(Identity(identity, PODS[identity]))
            self.engine.upsert_subject(number, Subject(PODS[identity]))

    def apply(self, *policies: dict[str, Any]) -> None:
        for key in list(self.engine.policies):
            self.engine.remove_policy(key)
        for one in policies:
            self.engine.upsert_policy(parse_policy(one))
        self.engine.commit()
        self.maps.peers.clear()
        self.maps.verdicts.clear()
        tables = self.engine.tables
        self.maps.add_verdicts(tables.verdicts)
        self.maps.set_peers(tables.peers)
        self.maps.set_subjects(tables.subjects)
        assert self.maps.read() == tables
        self.bench.revision += 1

    def send(self, source: int, target: int, port: int, family: int, *, again: bool = False) -> Outcome:
        self._port += not again
        packet = frame(NUMBERS[source], NUMBERS[target], Protocol.TCP, port, self._port, family)
        return self.bench.run("from_workload", packet, sender=f"w{NUMBERS[source]}")

    def rule(self, number: int) -> str:
        ref = self.engine.rules.ref(int(number))
        return f"{ref.policy.rpartition('/')[2]} {ref.path}" if ref else ""

    @property
    def counted(self) -> int:
        counters = self.bench.map("counters")
        return sum(int(counters.lookup(2 * AUDITED + number)["packets"].sum()) for number in range(2))


@pytest.fixture(scope="module", params=[(), ("track", "decide")], ids=["single", "cut"])
def place(request: pytest.FixtureRequest) -> Iterator[Rehearsal]:
    with DatapathBench(_stages(), specs(1024, 4096), cuts=request.param) as bench:
        for number, identity in LOCAL.items():
            bench.workload(
                number, f"w{number}", identity=identity, ipv4=f"10.0.0.{number}", ipv6=f"fd00::{number}"
            )
        yield Rehearsal(bench)


@pytest.mark.parametrize("family", [4, 6])
def test_what_would_be_denied_passes_and_says_so(place: Rehearsal, family: int) -> None:
    place.apply(with_mode(STRICT, audit=True))
    for source, port, reason, rule in (
        (C, 80, "POLICY_DENY", "strict spec.ingressDeny[0]"),
        (B, 81, "POLICY_DENIED", "strict default-deny"),
    ):
        before = place.counted
        outcome = place.send(source, A, port, family)
        assert outcome.action is not Action.SHOT
        (event,) = outcome.events
        assert (event["type"], event["flags"]) == (EventType.NEW, EventFlag.AUDITED)
        assert REASON[int(event["reason"])] == reason
        assert (place.rule(event["egress_rule"]), place.rule(event["ingress_rule"])) == ("", rule)
        assert place.counted == before + 1
        assert not len(place.send(source, A, port, family, again=True).events)
        assert place.counted == before + 1


@pytest.mark.parametrize("family", [4, 6])
def test_what_the_rehearsed_policy_allows_is_no_news(place: Rehearsal, family: int) -> None:
    place.apply(with_mode(STRICT, audit=True))
    before = place.counted
    (event,) = place.send(B, A, 80, family).events
    assert (event["type"], event["flags"], event["reason"]) == (EventType.NEW, 0, 0)
    assert place.counted == before


@pytest.mark.parametrize("family", [4, 6])
def test_what_is_enforced_is_not_weakened(place: Rehearsal, family: int) -> None:
    """The rehearsed policy allows B, which the other one does not."""
    closed = {**STRICT, "metadata": {"name": "closed", "namespace": "blue"}}
    closed["spec"] = {"endpointSelector": {"matchLabels": {"app": "a"}}, "ingress": [{}]}
    place.apply(with_mode(STRICT, audit=True), closed)
    outcome = place.send(B, A, 80, family)
    assert outcome.action is Action.SHOT
    (event,) = outcome.events
    assert (event["type"], event["flags"]) == (EventType.DROP, 0)
    assert place.rule(event["ingress_rule"]) == "closed default-deny"


@pytest.mark.parametrize("family", [4, 6])
def test_the_first_denial_would_be_the_last(place: Rehearsal, family: int) -> None:
    place.apply(with_mode(TALKATIVE, audit=True), with_mode(STRICT, audit=True))
    (event,) = place.send(B, A, 81, family).events
    assert event["flags"] == EventFlag.AUDITED
    assert (place.rule(event["egress_rule"]), event["ingress_rule"]) == ("talkative default-deny", 0)


@pytest.mark.parametrize("family", [4, 6])
def test_a_connection_that_lives_is_told_of_when_the_rehearsal_begins(place: Rehearsal, family: int) -> None:
    place.apply()
    (event,) = place.send(C, A, 80, family).events
    assert (event["type"], event["flags"]) == (EventType.NEW, 0)
    place.apply(with_mode(STRICT, audit=True))
    outcome = place.send(C, A, 80, family, again=True)
    assert outcome.action is not Action.SHOT
    (event,) = outcome.events
    assert (event["type"], event["flags"]) == (EventType.UPDATE, EventFlag.AUDITED)
    assert place.rule(event["ingress_rule"]) == "strict spec.ingressDeny[0]"
    place.apply(STRICT)
    assert place.send(C, A, 80, family, again=True).action is Action.SHOT
