"""Who answers for a service: requests that are all the same, and counted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from attrs import frozen

from axoneme.core.demo.article import DROPPED, Way
from axoneme.core.demo.services import Call
from axoneme.core.demo.traffic import Answer, Attempt, Told
from axoneme.core.demo.verdicts import Report, Witness, ask, elsewhere


@frozen(kw_only=True)
class Tally:
    """What became of the requests of one call by one way and family.

    :param expected: how often who has to answer.
    :param seen: how often who answered; or what happened instead.
    """

    call: Call
    way: Way
    family: int
    expected: Mapping[str, int]
    seen: Mapping[str, int]

    @property
    def ok(self) -> bool:
        return self.seen == self.expected


async def tally(
    call: Call, way: Way, family: int, attempts: Sequence[Attempt], witness: Witness, active: Collection[str]
) -> Tally:
    """Sends all of them at once."""
    asked = await asyncio.gather(*(ask(attempt, witness) for attempt in attempts))
    seen = Counter(
        _outcome(attempt, answer, report) for attempt, (answer, report) in zip(attempts, asked, strict=True)
    )
    expected = call.answers if call.possible(active) else {DROPPED: call.requests}
    return Tally(
        call=call,
        way=way,
        family=family,
        expected=dict(expected),
        seen=dict(sorted(seen.items())),
    )


def _outcome(attempt: Attempt, answer: Answer | Told, report: Report) -> str:
    """Who answered; or else, in words, what is wrong with it."""
    if not isinstance(answer, Told):
        return DROPPED if answer is Answer.NONE and report.dropped is not None else answer.value
    if answer.client != attempt.sees:
        return f"{answer.app}, which saw {answer.client}"
    if other := elsewhere(attempt.flow.way, report):
        return f"{answer.app} {other}"
    return answer.app
