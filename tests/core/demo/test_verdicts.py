"""From answers and events to verdicts."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from axoneme.core.demo import verdicts
from axoneme.core.demo.article import Flow, Way
from axoneme.core.demo.traffic import Answer, Attempt, Told
from axoneme.core.demo.verdicts import Decision, Judge, Report, Verdict, Witness, decisions, elsewhere
from axoneme.core.events.rules import RULES, Rule
from axoneme.core.state.table import State

FLOW = Flow("frontend", "backend-service", 8080, 4)
RIGHT = Told("backend-service", 8080, "127.0.0.1")


def rule(number: int, path: str, effect: str, **more: Any) -> Rule:
    values = {
        "kind": "CiliumNetworkPolicy",
        "namespace": "production",
        "name": "backend",
        "direction": "ingress",
    }
    return Rule(id=number, path=path, index=-1, effect=effect, text="", **(values | more))


RULE = {
    1: rule(1, "spec.ingress[0]", "allow", file="/somewhere/l4.yaml", line=12),
    2: rule(2, "default-deny", "default-deny", file="/somewhere/l4.yaml", line=2),
    3: rule(3, "no-policy", "no-policy", namespace="", name="", kind=""),
}


def event(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, **{f"{way}_rule": {"id": number} for way, number in more.items()}}


# Rules


def test_a_drop_is_due_to_the_rule_that_refused() -> None:
    [found] = decisions(event("drop", egress=1, ingress=2), RULE.get)
    assert str(found) == "production/backend ingress default-deny (l4.yaml:2)"


def test_an_allowed_connection_is_due_to_all_rules_that_allowed_it() -> None:
    found = decisions(event("new", egress=1, ingress=1), RULE.get)
    assert [each.direction for each in found] == ["egress", "ingress"]
    assert str(found[0]) == "production/backend spec.ingress[0] (l4.yaml:12)"


def test_where_no_policy_speaks_nobody_decided() -> None:
    assert decisions(event("new", egress=3, ingress=3), RULE.get) == ()
    assert Verdict(flow=FLOW, expected="allowed", seen="allowed").why == "no policy"


def test_a_rule_that_is_not_known_is_shown_by_its_number() -> None:
    assert str(decisions(event("drop", ingress=9), RULE.get)[0]) == "ingress rule 9"


def test_a_verdict_that_nothing_explains_says_so() -> None:
    assert Verdict(flow=FLOW, expected="allowed", seen="no answer").why == "nothing was reported"
    dropped = Verdict(flow=FLOW, expected="dropped", seen="dropped", reason="Invalid packet")
    assert dropped.ok
    assert dropped.why == "Invalid packet"


def test_a_decision_without_a_place_is_shown_without_one() -> None:
    made = Decision(direction="egress", id=1, policy="a/b", path="spec.egress[0]", effect="allow")
    assert str(made) == "a/b spec.egress[0]"


# Judging


class Stage:
    """A request whose answer and events the test plays."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, attempt: Attempt) -> None:
        self.attempt = attempt
        self.witness = Witness(lambda record: {}, [attempt])
        self.answer: asyncio.Future[Answer | Told] = asyncio.get_running_loop().create_future()
        state = State([RULES])
        state.writer(RULES.name, Rule).upsert(*RULE.values())
        self.judge = Judge(state.table(RULES.name, Rule), self.witness, lambda flow: "dropped")

        async def request(attempt: Attempt) -> Answer | Told:
            return await self.answer

        monkeypatch.setattr(verdicts, "request", request)

    def happens(self, kind: str, reply: bool = False, **more: Any) -> None:
        here, there = (
            dict(zip(("address", "port"), end, strict=True))
            for end in (self.attempt.key, self.attempt.target)
        )
        sides = {"source": there, "destination": here} if reply else {"source": here, "destination": there}
        self.witness.note(event(kind, **more) | sides)


@pytest.fixture
def attempt() -> Iterator[Attempt]:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        yield Attempt(FLOW, made, ("127.0.0.1", 8080), "127.0.0.1")


async def judged(stage: Stage, *steps: Any) -> Verdict:
    async with asyncio.TaskGroup() as group:
        judging = group.create_task(stage.judge.judge(stage.attempt))
        for step in steps:
            await asyncio.sleep(0)
            step()
    return judging.result()


async def test_an_answer_means_allowed(monkeypatch: pytest.MonkeyPatch, attempt: Attempt) -> None:
    stage = Stage(monkeypatch, attempt)
    verdict = await judged(
        stage, lambda: stage.answer.set_result(RIGHT), lambda: stage.happens("new", ingress=1)
    )
    assert (verdict.seen, verdict.ok, verdict.decisions[0].id) == ("allowed", False, 1)


async def test_silence_after_a_reported_drop_means_dropped(
    monkeypatch: pytest.MonkeyPatch, attempt: Attempt
) -> None:
    monkeypatch.setattr(verdicts, "SILENCE", 0.01)
    stage = Stage(monkeypatch, attempt)
    verdict = await judged(stage, lambda: stage.happens("drop", ingress=2))
    assert (verdict.seen, verdict.ok, verdict.decisions[0].id) == ("dropped", True, 2)


async def test_an_answer_after_a_drop_counts(monkeypatch: pytest.MonkeyPatch, attempt: Attempt) -> None:
    stage = Stage(monkeypatch, attempt)
    verdict = await judged(
        stage,
        lambda: stage.happens("drop", ingress=2),
        lambda: stage.answer.set_result(RIGHT),
        lambda: stage.happens("new", ingress=1),
    )
    assert verdict.seen == "allowed"


async def test_silence_without_a_drop_is_neither(monkeypatch: pytest.MonkeyPatch, attempt: Attempt) -> None:
    monkeypatch.setattr(verdicts, "PATIENCE", 0.01)
    stage = Stage(monkeypatch, attempt)
    verdict = await judged(stage)
    assert (verdict.seen, verdict.ok, verdict.why) == ("no answer", False, "nothing was reported")


@pytest.mark.parametrize(
    "told",
    [Told("cache", 8080, "127.0.0.1"), Told("backend-service", 8080, "192.0.2.1")],
    ids=["who", "whom"],
)
async def test_another_answer_than_that_of_who_was_asked_is_neither(
    monkeypatch: pytest.MonkeyPatch, attempt: Attempt, told: Told
) -> None:
    stage = Stage(monkeypatch, attempt)
    verdict = await judged(stage, lambda: stage.answer.set_result(told), lambda: stage.happens("new"))
    assert (verdict.seen, verdict.ok) == (str(told), False)


@pytest.mark.parametrize(
    ("way", "service", "said"),
    [
        (Way.DIRECT, 0, ""), (Way.SOCKET, 0, ""), (Way.PACKET, 7, ""),
        (Way.SOCKET, 7, "at the packet"), (Way.PACKET, 0, "at the socket"),
    ],
)  # fmt: skip
def test_where_an_address_was_exchanged_is_told_by_the_connections_service(
    way: Way, service: int, said: str
) -> None:
    assert elsewhere(way, Report(began={"service": service})) == said


async def test_being_refused_is_neither(monkeypatch: pytest.MonkeyPatch, attempt: Attempt) -> None:
    stage = Stage(monkeypatch, attempt)
    verdict = await judged(stage, lambda: stage.answer.set_result(Answer.REFUSED))
    assert (verdict.seen, verdict.ok) == ("refused", False)


async def test_events_of_others_and_of_replies_are_not_taken_for_it(
    monkeypatch: pytest.MonkeyPatch, attempt: Attempt
) -> None:
    monkeypatch.setattr(verdicts, "PATIENCE", 0.01)
    stage = Stage(monkeypatch, attempt)
    assert (await judged(stage, lambda: stage.happens("drop", reply=True, ingress=2))).seen == "no answer"
