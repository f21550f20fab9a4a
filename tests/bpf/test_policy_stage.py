"""The policy plugin's decision stage with tables written by hand: what each row makes of a packet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from packet_world import World, dropped, only, populate

from axoneme.core.datapath.abi import EventType
from axoneme.core.records import Phase, Stage
from axoneme.core.testing.datapath import Action, DatapathBench
from axoneme.core.testing.packets import SYN, UDP, fragments
from axoneme.plugins import policy
from axoneme.plugins.policy.config import PolicyConfig
from axoneme.plugins.policy.maps import PolicyMaps, specs
from axoneme.plugins.policy.tables import Action as Decision
from axoneme.plugins.policy.tables import Flag, SubjectEntry, VerdictValue

pytestmark = pytest.mark.kernel

EGRESS, INGRESS = Flag.EGRESS_ENFORCED, Flag.INGRESS_ENFORCED
#: Policies, which are also the class of peers that no rule names, and classes.
OUT, IN = 100, 200
FRIENDS = 900

#: Pays every debt, as the plugins that owe it would, and remembers in the connection what it was.
PAY = Stage(
    name="pay", attach=("from_workload",), phase=Phase.REDIRECT,
    source="STAGE(pay)\n{\n\tp->mark = p->proxy_port;\n\tp->owed = 0;\n\treturn NEXT;\n}\n",
)  # fmt: skip


class Context:
    config = PolicyConfig()


def stages() -> list[tuple[str, Stage]]:
    return [("policy", stage) for stage in policy.axoneme_stages(Context())]  # type: ignore[arg-type]


def bench_with(*more: tuple[str, Stage]) -> DatapathBench:
    return DatapathBench([*stages(), *more], specs(256, 1024))


@pytest.fixture(scope="module")
def bench() -> Iterator[DatapathBench]:
    with bench_with() as bench:
        populate(bench)
        yield bench


@pytest.fixture(scope="module")
def paying() -> Iterator[DatapathBench]:
    with bench_with(("zz-last", PAY)) as bench:
        populate(bench)
        yield bench


class Policies(World):
    """A world with tables that a test fills."""

    @property
    def maps(self) -> PolicyMaps:
        return PolicyMaps(*(self.bench.map(f"policy_{name}") for name in ("subjects", "peers", "verdicts")))

    def empty(self) -> None:
        self.reset()
        self.maps.peers.clear()
        self.maps.verdicts.clear()
        self.subjects(a=Flag.COMPUTED, b=Flag.COMPUTED, c=Flag.COMPUTED)
        for default in (OUT, IN):
            self.verdict(default, Decision.DENY)

    def subjects(self, **flags: Flag) -> None:
        numbers = {"a": 1, "b": 2, "c": 3}
        self.maps.set_subjects({numbers[name]: SubjectEntry(OUT, IN, each) for name, each in flags.items()})

    def peer(self, policy: int, identity: int, class_: int = FRIENDS) -> None:
        self.maps.set_peers({policy: {identity: class_}})

    def verdict(
        self, class_: int, action: Decision, protocol: int = 0, port: int = 0, bits: int = 16, **more: int
    ) -> None:
        block = (protocol, bits if protocol else 0, port)
        self.maps.add_verdicts({class_: {block: VerdictValue(action, **more)}})

    def allowed(self, frame: bytes) -> bool:
        self.table.clear()
        outcome = self.send(frame)
        assert outcome.action in (Action.REDIRECT, Action.PASS, Action.SHOT)
        return outcome.action is not Action.SHOT


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def world(request: pytest.FixtureRequest, bench: DatapathBench) -> Policies:
    world = Policies(bench, request.param)
    world.empty()
    return world


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def rich(request: pytest.FixtureRequest, paying: DatapathBench) -> Policies:
    world = Policies(paying, request.param)
    world.empty()
    return world


def test_what_is_not_enforced_is_allowed(world: Policies) -> None:
    assert world.allowed(world.tcp("a", "b", SYN))
    assert world.allowed(world.udp("a", "world"))


@pytest.mark.parametrize("name", ["a", "b"])
def test_an_uncomputed_policy_is_closed(world: Policies, name: str) -> None:
    world.subjects(**{name: Flag(0)})
    assert dropped(world.send(world.tcp("a", "b", SYN)), "DROP_EP_NOT_READY")


def test_a_class_that_is_not_written_yet_is_closed(world: Policies) -> None:
    world.subjects(b=Flag.COMPUTED | INGRESS)
    world.peer(IN, 256, 901)
    assert dropped(world.send(world.tcp("a", "b", SYN)), "DROP_EP_NOT_READY")


@pytest.mark.parametrize(
    ("egress", "ingress", "passes"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_both_sides_are_asked(world: Policies, egress: bool, ingress: bool, passes: bool) -> None:
    world.subjects(a=Flag.COMPUTED | EGRESS, b=Flag.COMPUTED | INGRESS)
    world.verdict(FRIENDS, Decision.ALLOW, 6, 80, rule=5)
    if egress:
        world.peer(OUT, 257)
    if ingress:
        world.peer(IN, 256)
    assert world.allowed(world.tcp("a", "b", SYN)) is passes


def test_the_rules_that_decided_are_told(world: Policies) -> None:
    world.subjects(a=Flag.COMPUTED | EGRESS, b=Flag.COMPUTED | INGRESS)
    world.peer(OUT, 257, 901)
    world.peer(IN, 256, 902)
    world.verdict(901, Decision.ALLOW, rule=11)
    world.verdict(902, Decision.ALLOW, rule=12)
    event = only(world.send(world.tcp("a", "b", SYN)).events)
    assert event["type"] == EventType.NEW
    assert (event["egress_rule"], event["ingress_rule"]) == (11, 12)
    assert world.connection("b", "a", 80, 40000)["ingress_rule"] == 12


@pytest.mark.parametrize(
    ("action", "reason"), [(Decision.DENY, "POLICY_DENIED"), (Decision.DENY_RULE, "POLICY_DENY")]
)
def test_a_denial_names_its_rule(world: Policies, action: Decision, reason: str) -> None:
    world.subjects(b=Flag.COMPUTED | INGRESS)
    world.peer(IN, 256)
    world.verdict(FRIENDS, action, rule=77)
    outcome = world.send(world.tcp("a", "b", SYN))
    assert dropped(outcome, reason)
    event = only(outcome.events)
    assert (event["egress_rule"], event["ingress_rule"]) == (0, 77)
    assert (event["source_identity"], event["destination_identity"]) == (256, 257)
    assert world.entries() == 0


def test_replies_need_no_rule_of_their_own(world: Policies) -> None:
    """Also when the connection has to be decided anew on one: the question is still the client's."""
    world.subjects(a=Flag.COMPUTED | EGRESS | INGRESS, b=Flag.COMPUTED | EGRESS | INGRESS)
    world.peer(OUT, 257, 901)
    world.peer(IN, 256, 902)
    for class_ in (901, 902):
        world.verdict(class_, Decision.DENY)
        world.verdict(class_, Decision.ALLOW, 6, 80, rule=class_)
    world.open("a", "b")
    world.bench.revision = 2
    assert world.send(world.tcp("b", "a", sport=80, dport=40000)).action is Action.REDIRECT
    assert world.connection("a", "b")["revision"] == 2
    errors = {
        3: world.error("b", "a", world.tcp("a", "b")),
        4: world.error("a", "b", world.tcp("b", "a", sport=80, dport=40000)),
    }
    for revision, error in errors.items():
        world.bench.revision = revision
        assert world.send(error).action is Action.REDIRECT
    assert dropped(world.send(world.tcp("b", "a", SYN, sport=80, dport=40000)), "POLICY_DENIED")


def test_the_world_is_a_peer(world: Policies) -> None:
    world.subjects(a=Flag.COMPUTED | EGRESS)
    assert not world.allowed(world.udp("a", "world"))
    world.peer(OUT, 2)
    world.verdict(FRIENDS, Decision.ALLOW)
    assert world.allowed(world.udp("a", "world"))
    assert not world.allowed(world.udp("a", "remote"))


def test_peers_that_no_rule_names_have_the_policys_own_class(world: Policies) -> None:
    world.subjects(b=Flag.COMPUTED | INGRESS)
    world.verdict(IN, Decision.ALLOW, 6, 80)
    assert world.allowed(world.tcp("a", "b", SYN))
    assert world.allowed(world.tcp("c", "b", SYN))
    assert not world.allowed(world.tcp("a", "b", SYN, dport=81))


def test_the_longest_prefix_of_the_port_decides(world: Policies) -> None:
    world.subjects(b=Flag.COMPUTED | INGRESS)
    world.peer(IN, 256)
    world.verdict(FRIENDS, Decision.DENY)
    world.verdict(FRIENDS, Decision.ALLOW, 6, 8192, bits=3)  # 8192 to 16383
    world.verdict(FRIENDS, Decision.DENY_RULE, 6, 9216, bits=6)  # 9216 to 10239
    world.verdict(FRIENDS, Decision.ALLOW, 6, 9999)
    allowed = [port for port in (80, 8191, 8192, 9215, 9216, 9999, 10239, 10240, 16383, 16384)
               if world.allowed(world.tcp("a", "b", SYN, dport=port))]  # fmt: skip
    assert allowed == [8192, 9215, 9999, 10240, 16383]
    assert not world.allowed(world.udp("a", "b", dport=9999)), "another protocol"


def test_a_whole_protocol(world: Policies) -> None:
    world.subjects(b=Flag.COMPUTED | INGRESS)
    world.verdict(IN, Decision.ALLOW, 17, 0, bits=0)
    assert world.allowed(world.udp("a", "b", dport=9))
    assert world.allowed(world.udp("a", "b", dport=65535))
    assert not world.allowed(world.tcp("a", "b", SYN))


def test_later_fragments_are_judged_by_the_first_ones_port(world: Policies) -> None:
    """Also those that have to be decided anew."""
    world.subjects(b=Flag.COMPUTED | INGRESS)
    world.verdict(IN, Decision.ALLOW, 17, 53)
    first, *later = fragments(world.frame("a", "b", UDP(40000, 53), bytes(40)), 16)
    assert world.allowed(first)
    for fragment in later:
        world.bench.revision += 1
        assert world.send(fragment).action is Action.REDIRECT


def test_later_fragments_of_an_echo_are_judged_as_one(world: Policies) -> None:
    protocol, request = (1, 8) if world.family == 4 else (58, 128)
    world.subjects(b=Flag.COMPUTED | INGRESS)
    world.verdict(IN, Decision.ALLOW, protocol, request)
    first, later, *_ = fragments(world.echo("a", "b", data=bytes(40)), 16)
    assert world.allowed(first)
    world.bench.revision += 1
    assert world.send(later).action is Action.REDIRECT


def test_an_icmp_type_is_a_port(world: Policies) -> None:
    protocol, request, answer = (1, 8, 0) if world.family == 4 else (58, 128, 129)
    world.subjects(b=Flag.COMPUTED | INGRESS)
    world.verdict(IN, Decision.ALLOW, protocol, request)
    assert world.allowed(world.echo("a", "b"))
    assert not world.allowed(world.echo("a", "b", reply=True)), "nobody asked for that answer"
    world.verdict(IN, Decision.ALLOW, protocol, answer)
    assert world.allowed(world.echo("a", "b", reply=True))
    world.table.clear()
    world.send(world.echo("a", "b"))
    world.bench.revision = 2
    assert world.send(world.echo("b", "a", reply=True)).action is Action.REDIRECT


# Authentication and redirection.


def obligation(world: Policies, **value: Any) -> None:
    world.subjects(b=Flag.COMPUTED | INGRESS)
    action = value.pop("action", Decision.ALLOW)
    world.verdict(IN, action, 6, 80, **value)


@pytest.mark.parametrize(("auth", "passes"), [(0, True), (1, True), (2, False), (3, False)])
def test_authentication_is_owed(world: Policies, auth: int, passes: bool) -> None:
    obligation(world, auth=auth)
    outcome = world.send(world.tcp("a", "b", SYN))
    if passes:
        assert outcome.action is Action.REDIRECT
        assert world.connection("a", "b")["auth"] == 0
    else:
        assert dropped(outcome, "AUTH_REQUIRED")
        assert only(outcome.events)["auth"] == auth


def test_a_redirect_is_owed(world: Policies) -> None:
    obligation(world, action=Decision.REDIRECT, proxy_port=15001, rule=3)
    outcome = world.send(world.tcp("a", "b", SYN))
    assert dropped(outcome, "PROXY_ABSENT")
    assert only(outcome.events)["ingress_rule"] == 3


def test_a_redirect_is_remembered(rich: Policies) -> None:
    obligation(rich, action=Decision.REDIRECT, proxy_port=15001)
    assert rich.send(rich.tcp("a", "b", SYN)).mark == 15001
    assert rich.connection("a", "b")["proxy_port"] == 15001
    assert rich.send(rich.tcp("a", "b")).mark == 15001


def test_the_stronger_authentication_holds(rich: Policies) -> None:
    rich.subjects(a=Flag.COMPUTED | EGRESS, b=Flag.COMPUTED | INGRESS)
    rich.verdict(OUT, Decision.ALLOW, auth=3)
    rich.verdict(IN, Decision.ALLOW, auth=2)
    assert rich.send(rich.tcp("a", "b", SYN)).action is Action.REDIRECT
    assert rich.connection("a", "b")["auth"] == 3


# Where the packet comes from.


def test_ingress_is_enforced_for_the_host_and_the_network(world: Policies) -> None:
    world.subjects(b=Flag.COMPUTED | INGRESS)
    assert dropped(world.deliver(world.tcp("host", "b", SYN)), "POLICY_DENIED")
    assert dropped(world.arrive(world.tcp("world", "b", SYN)), "POLICY_DENIED")
    world.peer(IN, 1)
    world.verdict(FRIENDS, Decision.ALLOW)
    assert world.deliver(world.tcp("host", "b", SYN)).action is Action.REDIRECT
