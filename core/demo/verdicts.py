"""What became of each request: from its answer, and from what the kernel reported about its packets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from attrs import field, frozen, mutable

from axoneme.core.demo.article import ALLOWED, DROPPED, Flow, Way
from axoneme.core.demo.traffic import Answer, Attempt, Told, request
from axoneme.core.events.rules import Rule
from axoneme.core.state.table import Table

if TYPE_CHECKING:
    from axoneme.core.events.stream import Listener

#: Seconds that a dropped connection has to show that it goes through after all. TCP asks again after one second.
SILENCE: Final = 1.0
#: Seconds after which a connection that nothing was heard of, neither answer nor drop, is given up.
PATIENCE: Final = 5.0

#: A client's address and port. Whom it talks to may be exchanged underway.
Key: TypeAlias = tuple[str, int]

#: Effects of rules that let a packet pass because nobody was asked.
_UNDECIDED: Final = frozenset({"no-policy", "default-allow"})


def _nothing() -> None:
    return


@frozen(kw_only=True)
class Decision:
    """A rule that took part in a verdict.

    :param effect: `allow`, `deny`, `default-deny` …
    """

    direction: str
    id: int
    policy: str = ""
    path: str = ""
    effect: str = ""
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        place = f" ({Path(self.file).name}:{self.line})" if self.file and self.line else ""
        if not self.effect:
            return f"{self.direction} rule {self.id}"
        where = self.path if self.path.startswith("spec") else f"{self.direction} {self.effect}"
        return f"{self.policy} {where}{place}".strip()


@frozen(kw_only=True)
class Verdict:
    """What became of one request.

    :param seen: `allowed`, `dropped`, or an answer that is neither.
    :param reason: why the kernel dropped it, in words.
    :param decisions: the rules behind it; none: no policy speaks of it.
    """

    flow: Flow
    expected: str
    seen: str
    reason: str = ""
    decisions: tuple[Decision, ...] = ()

    @property
    def ok(self) -> bool:
        return self.seen == self.expected

    @property
    def why(self) -> str:
        """The rule that decided, in words."""
        rule = " + ".join(map(str, self.decisions))
        if self.seen not in (ALLOWED, DROPPED):
            return self.reason or rule or "nothing was reported"
        return rule or self.reason or "no policy"


@mutable(eq=False)
class Report:
    """What was reported of one connection: its beginning, and being dropped.

    :ivar on_drop: called when the first drop is reported.
    """

    began: dict[str, Any] | None = None
    dropped: dict[str, Any] | None = None
    beginning: asyncio.Event = field(factory=asyncio.Event)
    on_drop: Callable[[], None] = _nothing

    def note(self, event: Mapping[str, Any]) -> None:
        if event["type"] != "drop":
            self.began = self.began or dict(event)
            self.beginning.set()
        elif self.dropped is None:
            self.dropped = dict(event)
            self.on_drop()


class Witness:
    """Listens to the kernel's events about some connections.

    :param name: turns a record into words, see `Namer.name`.
    """

    def __init__(self, name: Callable[[np.void], dict[str, Any]], attempts: Iterable[Attempt]) -> None:
        self._name = name
        self._reports: dict[Key, Report] = {attempt.key: Report() for attempt in attempts}

    def report(self, attempt: Attempt) -> Report:
        return self._reports[attempt.key]

    async def follow(self, listener: Listener) -> None:
        """Without end."""
        async for batch in listener.batches():
            for event in batch:
                self.note(self._name(event) | {"service": int(event["service"])})

    def note(self, event: Mapping[str, Any]) -> None:
        """Remembers an event if it is about one of the connections; one of the other direction is not."""
        source = event["source"]
        if (report := self._reports.get((source["address"], source.get("port", 0)))) is not None:
            report.note(event)


class Judge:
    """Turns answers and reports into verdicts.

    :param expected: what must become of a flow.
    """

    def __init__(self, rules: Table[Rule], witness: Witness, expected: Callable[[Flow], str]) -> None:
        self._rules = rules
        self._witness = witness
        self._expected = expected

    async def judge(self, attempt: Attempt) -> Verdict:
        """Sends the request and waits for what becomes of it."""
        flow = attempt.flow
        answer, report = await ask(attempt, self._witness)
        if answer == Told(flow.destination, flow.port, attempt.sees):
            other = elsewhere(flow.way, report)
            return self._verdict(flow, other or ALLOWED, report.began)
        if answer is Answer.NONE and report.dropped is not None:
            return self._verdict(flow, DROPPED, report.dropped)
        seen = str(answer) if isinstance(answer, Told) else answer.value
        return self._verdict(flow, seen, report.dropped or report.began)

    def _verdict(self, flow: Flow, seen: str, event: Mapping[str, Any] | None) -> Verdict:
        return Verdict(
            flow=flow,
            expected=self._expected(flow),
            seen=seen,
            reason=str(event.get("reason_text", "")) if event else "",
            decisions=decisions(event or {}, self._rules.get),
        )


async def ask(attempt: Attempt, witness: Witness) -> tuple[Answer | Told, Report]:
    """The answer, if one comes: within `PATIENCE`, or within `SILENCE` after the kernel reported a drop. And its report, where
    there was an answer with the beginning of the connection in it."""
    loop, report = asyncio.get_running_loop(), witness.report(attempt)
    try:
        async with asyncio.timeout(PATIENCE) as limit:
            report.on_drop = lambda: limit.reschedule(loop.time() + SILENCE)
            answer = await request(attempt)
    except TimeoutError:
        answer = Answer.NONE
    finally:
        report.on_drop = _nothing
    if isinstance(answer, Told):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(report.beginning.wait(), PATIENCE)
    return answer, report


def elsewhere(way: Way, report: Report) -> str:
    """Where a service's address was exchanged, if not where it should have been: the packets of what was exchanged at the
    socket know no service."""
    if way is Way.DIRECT or report.began is None:
        return ""
    found = Way.PACKET if report.began.get("service") else Way.SOCKET
    return "" if found is way else f"at the {found}"


def decisions(event: Mapping[str, Any], row: Callable[[int], Rule | None]) -> tuple[Decision, ...]:
    """The rules of an event that decided: of a drop those that refused, of anything else those that allowed."""
    found = [
        _decision(way, event[f"{way}_rule"]["id"], row)
        for way in ("egress", "ingress")
        if f"{way}_rule" in event
    ]
    found = [each for each in found if each.effect not in _UNDECIDED]
    if event.get("type") == "drop":
        return tuple(each for each in found if each.effect != "allow") or tuple(found)
    return tuple(found)


def _decision(direction: str, number: int, row: Callable[[int], Rule | None]) -> Decision:
    rule = row(number)
    if rule is None:
        return Decision(direction=direction, id=number)
    return Decision(
        direction=direction,
        id=number,
        policy=f"{rule.namespace}/{rule.name}".strip("/"),
        path=rule.path,
        effect=rule.effect,
        file=rule.file,
        line=rule.line,
    )
