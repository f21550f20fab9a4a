"""The rows of the demo's tables: requests with the same end are one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from attrs import frozen

from axoneme.core.demo.article import NAMESPACE, OUTSIDE, Way
from axoneme.core.demo.tallies import Tally
from axoneme.core.demo.verdicts import Verdict

HEADINGS: Final = ("from", "to", "port", "IP", "via", "expected", "seen", "decided by")
CALL_HEADINGS: Final = ("service", "address", "port", "from", "at", "IP", "answered by")

#: Ways of one column's word: a service is used at both places, if it is used at all.
_SERVICE: Final = frozenset({Way.SOCKET, Way.PACKET})


@frozen
class Row:
    """A line of the table of verdicts: one request, or some by other families and ways with the same end."""

    verdicts: tuple[Verdict, ...]

    @property
    def ok(self) -> bool:
        return all(verdict.ok for verdict in self.verdicts)

    def decided(self) -> bool:
        """Whether a policy had a say."""
        return any(verdict.decisions for verdict in self.verdicts)

    def cells(self) -> tuple[str, ...]:
        first = self.verdicts[0]
        flows = [verdict.flow for verdict in self.verdicts]
        destinations = {flow.destination for flow in flows}
        several = len(destinations) > 1
        return (
            first.flow.source,
            f"{len(destinations)} others" if several else first.flow.destination,
            "all" if several else _all(flow.port for flow in flows),
            _all(flow.family for flow in flows),
            _via({flow.way for flow in flows}),
            first.expected,
            first.seen,
            first.why.replace(f"{NAMESPACE}/", ""),
        )


def _all(numbers: Iterable[int]) -> str:
    return " ".join(map(str, sorted(set(numbers))))


def _via(ways: set[Way]) -> str:
    service = "service" if ways >= _SERVICE else " ".join(way for way in Way if way in ways & _SERVICE)
    if Way.DIRECT in ways:
        return "both" if service == "service" else f"direct {service}".strip()
    return service


def rows(verdicts: Iterable[Verdict]) -> list[Row]:
    """What no policy speaks of first, a line for each client; then what one decided."""
    groups: dict[tuple[object, ...], list[Verdict]] = {}
    for verdict in verdicts:
        groups.setdefault(_kind(verdict), []).append(verdict)
    made = [Row(tuple(each)) for some in groups.values() for each in _even(some)]
    return sorted(made, key=lambda row: (row.decided(), not row.ok))


def _kind(verdict: Verdict) -> tuple[object, ...]:
    """What the verdicts of one row have in common."""
    end = (verdict.flow.source, verdict.expected, verdict.seen, verdict.why)
    plain = verdict.ok and not verdict.decisions and not verdict.reason
    return end if plain else (*end, verdict.flow.destination)


def _even(some: Sequence[Verdict]) -> list[list[Verdict]]:
    """A row says each of its ports for each of its families and ways: those that are not even are a row each."""
    flows = [verdict.flow for verdict in some]
    sizes = [
        len(set(each)) for each in zip(*((flow.port, flow.family, flow.way) for flow in flows), strict=True)
    ]
    if len({flow.destination for flow in flows}) > 1 or len(some) == math.prod(sizes):
        return [list(some)]
    return [[verdict] for verdict in some]


@frozen
class CallRow:
    """A line of the table of services: a call by one way, by both families where they had the same end."""

    tallies: tuple[Tally, ...]

    @property
    def ok(self) -> bool:
        return all(each.ok for each in self.tallies)

    def cells(self) -> tuple[str, ...]:
        first = self.tallies[0]
        call = first.call
        return (
            call.service,
            call.kind,
            str(call.port),
            call.source,
            "edge" if OUTSIDE.name in (call.service, call.source) else str(first.way),
            " ".join(str(each.family) for each in self.tallies),
            counts(first.seen) + (", who saw the node's address" if call.sees == "node" and first.ok else ""),
        )

    def differs(self) -> str:
        """What should have been."""
        return f"expected {counts(self.tallies[0].expected)}"


def counts(answers: Mapping[str, int]) -> str:
    """`api-service-v1 18 times, api-service-v2 2 times`."""
    return ", ".join(f"{name} {number} times" for name, number in answers.items())


def call_rows(tallies: Iterable[Tally]) -> list[CallRow]:
    groups: dict[tuple[object, ...], list[Tally]] = {}
    for each in tallies:
        same = (each.call.service, each.call.kind, each.way, tuple(each.seen.items()))
        groups.setdefault(same, []).append(each)
    return [CallRow(tuple(some)) for some in groups.values()]
