"""Stages of plugins in the real programs: when they run, in what order, what they return, what is remembered of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from packet_world import GATE_MAP, GATE_STAGE, STRATEGIES, World, discarded, dropped, only, populate

from axoneme.core.datapath.layout import u32
from axoneme.core.datapath.maps import MapKind, MapSpec
from axoneme.core.records import DropReason, Phase, Runs, Stage
from axoneme.core.testing.datapath import Action, DatapathBench, Outcome
from axoneme.core.testing.packets import ACK, SYN

pytestmark = pytest.mark.kernel

#: Stages leave their number here, in the order in which they run: slot 0 counts.
TRAIL = MapSpec("trail", MapKind.ARRAY, u32, u32, 32)
LEAVE_MARK = """
STAGE(%(name)s)
{
	u32 at = 0, number = NUMBER;
	u32 *count = trail_lookup(&at);

	if (!count)
		return NEXT;
	at = ++*count;
	trail_update(&at, &number, BPF_ANY);
	%(then)s
}
"""
POINTS = ("from_workload", "to_workload", "from_network", "to_network")


def stage(
    name: str, number: int, phase: Phase, runs: Runs = Runs.FIRST, then: str = "return NEXT;", **more: Any
) -> Stage:
    source = LEAVE_MARK % {"name": name, "then": then}
    return Stage(
        name=name, source=source, attach=POINTS, phase=phase, runs=runs, maps=("trail",),
        defines={"NUMBER": number}, **more,
    )  # fmt: skip


def bench_of(stages: Iterable[tuple[str, Stage]], **more: Any) -> DatapathBench:
    return DatapathBench(stages, [TRAIL, GATE_MAP], **more)


def trail(bench: DatapathBench) -> list[int]:
    """Who ran since this was last asked."""
    numbers = bench.map("trail")
    count = numbers.lookup(0)
    ran = [numbers.lookup(at) for at in range(1, count + 1)]
    numbers.update(0, 0)
    return ran


PHASES = (Phase.CLASSIFY, Phase.TRANSLATE, Phase.TRACK, Phase.DECIDE, Phase.AUTHENTICATE, Phase.REDIRECT, Phase.ENCRYPT,
          Phase.DELIVER, Phase.OBSERVE)  # fmt: skip
FIRST = {phase: 10 + number for number, phase in enumerate(PHASES) if number > 1}
EVERY = {phase: 30 + number for number, phase in enumerate(PHASES)}


@pytest.fixture(scope="module", params=STRATEGIES)
def everywhere(request: pytest.FixtureRequest) -> Iterator[DatapathBench]:
    """Two stages in each phase, one for first packets and one for all, given in the wrong order."""
    stages = [("late", stage(f"every_{p}", n, p, Runs.EVERY)) for p, n in EVERY.items()]
    stages += [("early", stage(f"first_{p}", n, p)) for p, n in FIRST.items()]
    with bench_of(reversed(stages), cuts=STRATEGIES[request.param]) as bench:
        populate(bench)
        yield bench


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def staged(request: pytest.FixtureRequest, everywhere: DatapathBench) -> World:
    world = World(everywhere, request.param).reset()
    trail(everywhere)
    return world


def test_first_packets_pass_all_stages_in_phase_order(staged: World) -> None:
    staged.send(staged.tcp("a", "b", SYN))
    expected = [n for phase in PHASES for n in (FIRST.get(phase), EVERY[phase]) if n]
    assert trail(staged.bench) == expected


def test_later_packets_pass_only_those_for_every_packet(staged: World) -> None:
    staged.open("a", "b")
    trail(staged.bench)
    staged.send(staged.tcp("a", "b", ACK))
    assert trail(staged.bench) == list(EVERY.values())


def test_nothing_runs_for_a_packet_that_is_not_understood(staged: World) -> None:
    staged.send(staged.frame("a", "b", bytes(20), protocol=47))
    assert trail(staged.bench) == []


def test_a_forged_packet_reaches_no_decision(staged: World) -> None:
    staged.send(staged.tcp("b", "c", SYN), sender="a")
    assert trail(staged.bench) == [
        EVERY[Phase.CLASSIFY],
        EVERY[Phase.TRANSLATE],
        FIRST[Phase.TRACK],
        EVERY[Phase.TRACK],
    ]


def test_all_stages_run_where_packets_leave_the_node(staged: World) -> None:
    staged.bench.run("to_network", staged.tcp("a", "world"), sender=staged.bench.link("uplink"))
    expected = [n for phase in PHASES for n in (FIRST.get(phase), EVERY[phase]) if n]
    assert trail(staged.bench) == expected


def test_before_and_after_decide_within_a_phase() -> None:
    stages = [
        ("x", stage("last", 3, Phase.DECIDE, after=("middle",))),
        ("y", stage("middle", 2, Phase.DECIDE)),
        ("z", stage("zeroth", 1, Phase.DECIDE, before=("y.middle",))),
    ]
    with bench_of(stages) as bench:
        populate(bench)
        World(bench, 4).send(World(bench, 4).tcp("a", "b", SYN))
        assert trail(bench) == [1, 2, 3]


# What a stage returns.

VERDICTS: dict[str, Callable[[Outcome], bool]] = {
    "DROP(REASON_AUTH_REQUIRED)": lambda outcome: dropped(outcome, "AUTH_REQUIRED"),
    "DROP(REASON_TEST_OWN)": lambda outcome: outcome.action is Action.SHOT and outcome.reason == "444",
    "DISCARD": discarded,
    "TO_STACK": lambda outcome: outcome.action is Action.PASS and not len(outcome.events),
    "TAKEN(TC_ACT_OK)": lambda outcome: outcome.action is Action.OK,
    "TAKEN(bpf_redirect(p->skb->ifindex, 0))": lambda outcome: outcome.action is Action.REDIRECT,
}


@pytest.mark.parametrize("verdict", VERDICTS)
def test_what_a_stage_says_is_final(verdict: str) -> None:
    stages = [
        ("one", stage("ends", 1, Phase.AUTHENTICATE, then=f"return {verdict};")),
        ("two", stage("never", 2, Phase.ENCRYPT)),
    ]
    own = DropReason(number=444, name="TEST_OWN", text="a test's own reason")
    with bench_of(stages, reasons=[own]) as bench:
        populate(bench)
        world = World(bench, 4)
        frame = world.tcp("a", "b", SYN)
        outcome = world.send(frame)
        assert VERDICTS[verdict](outcome)
        assert outcome.frame == frame
        assert trail(bench) == [1]
        assert world.entries() == 0


def test_a_drop_of_a_known_connection_says_whose() -> None:
    """A stage for every packet has the connection's entry; so has the event about what it dropped."""
    text = """
STAGE(limit)
{
	return p->conn && p->conn->packets > 2 ? DROP(REASON_POLICY_DENIED) : NEXT;
}
"""
    limit = Stage(name="limit", source=text, attach=POINTS, phase=Phase.DECIDE, runs=Runs.EVERY)
    with bench_of([("test", limit)]) as bench:
        populate(bench)
        world = World(bench, 4)
        world.open("a", "b")
        event = only(world.send(world.tcp("a", "b")).events)
        assert (event["source_identity"], event["destination_identity"]) == (256, 257)
        assert world.entries() == 2, "the connection itself was not decided anew"


# Obligations.


@pytest.mark.parametrize(
    ("owed", "reason"),
    [
        (1, "PROXY_ABSENT"),
        (2, "AUTH_REQUIRED"),
        (4, "UNENCRYPTED_TRAFFIC"),
        (7, "AUTH_REQUIRED"),
        (5, "PROXY_ABSENT"),
    ],
)
@pytest.mark.parametrize("stale", [False, True])
def test_what_is_owed_closes_the_door(world: World, owed: int, reason: str, stale: bool) -> None:
    if stale:
        world.open("a", "b")
        world.bench.revision = 2
    world.gate(owed=owed)
    assert dropped(world.send(world.tcp("a", "b", SYN)), reason)
    assert world.entries() == 0


def test_a_debt_that_is_paid_opens_it() -> None:
    pay = Stage(
        name="pay", attach=("from_workload",), phase=Phase.AUTHENTICATE,
        source="STAGE(pay)\n{\n\tp->owed &= ~OWED_AUTH;\n\treturn NEXT;\n}\n",
    )  # fmt: skip
    with bench_of([("test", GATE_STAGE), ("spire", pay)]) as bench:
        populate(bench)
        world = World(bench, 4)
        world.gate(owed=2)
        assert world.send(world.tcp("a", "b", SYN)).action is Action.REDIRECT
        world.gate(owed=6)
        assert dropped(world.send(world.tcp("a", "c", SYN)), "UNENCRYPTED_TRAFFIC")


# What is remembered.


def test_the_mark_is_remembered(world: World) -> None:
    world.gate(mark=0x200)
    assert world.send(world.tcp("a", "world", SYN)).mark == 0x200
    world.gate(mark=0)
    assert world.send(world.tcp("a", "world")).mark == 0x200
    assert world.send(world.tcp("a", "world"), mark=7).mark == 0x200
    world.bench.revision = 2
    assert world.send(world.tcp("a", "world")).mark == 0


def test_without_a_mark_the_packets_own_stays(world: World) -> None:
    assert world.send(world.tcp("a", "world", SYN), mark=7).mark == 7
    assert world.send(world.tcp("a", "world"), mark=8).mark == 8


def test_a_slot_is_the_plugins_own() -> None:
    """Some words in each direction's entry that nobody else touches, across new decisions too."""
    text = """
STAGE(tally)
{
	if (p->conn)
		*SLOT(p->conn, seen) += 1;
	return NEXT;
}
"""
    tally = Stage(
        name="tally",
        source=text,
        attach=POINTS,
        phase=Phase.OBSERVE,
        runs=Runs.EVERY,
        slots={"pair": 2, "seen": 1},
    )
    with bench_of([("test", tally)]) as bench:
        populate(bench)
        world = World(bench, 4)
        world.send(world.tcp("a", "b", SYN))
        for revision in (1, 1, 2, 2):
            bench.revision = revision
            world.send(world.tcp("a", "b"))
        assert world.connection("a", "b")["slot"].tolist() == [0, 0, 4, 0]
        assert world.connection("b", "a", 80, 40000)["slot"].sum() == 0
        foreign = world.connection("a", "b").copy()
        foreign["layout"] += 1  # noted when the words had other owners
        world.table.update(world.key("a", "b"), foreign)
        bench.revision = 3
        world.send(world.tcp("a", "b"))
        assert world.connection("a", "b")["slot"].tolist() == [0, 0, 1, 0]
