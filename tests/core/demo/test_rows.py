"""Requests with the same end are one row."""

from __future__ import annotations

from demo_results import result, verdict

from axoneme.core.demo.article import Flow, Way
from axoneme.core.demo.rows import call_rows, rows
from axoneme.core.demo.services import CALLS
from axoneme.core.demo.tallies import Tally


def both(seen: str, *ways: Way, port: int = 8080) -> list[object]:
    return [
        verdict(Flow("frontend", "backend-service", port, family, way), seen)
        for family in (4, 6)
        for way in ways
    ]


def cells(*verdicts: object) -> list[tuple[str, ...]]:
    return [row.cells() for row in rows(verdicts)]  # type: ignore[arg-type]


def test_where_no_policy_speaks_a_client_has_one_row() -> None:
    made = rows(result().verdicts)
    undecided = [row.cells()[:4] for row in made if not row.decided()]
    assert ("frontend", "8 others", "all", "4 6") in undecided
    assert len(undecided) == 10


def test_ports_families_and_ways_are_together_where_they_agree() -> None:
    [row] = cells(*both("dropped", *Way, port=8080), *both("dropped", *Way, port=9090))
    assert row[:7] == ("frontend", "backend-service", "8080 9090", "4 6", "both", "dropped", "dropped")


def test_what_is_not_even_is_a_row_each() -> None:
    four, six = both("dropped", Way.DIRECT)
    assert [row[3] for row in cells(four, *both("dropped", Way.SOCKET))] == ["4", "4", "6"]
    assert [row[3] for row in cells(four, six)] == ["4 6"]


def test_what_differs_stands_for_itself() -> None:
    made = cells(*both("dropped", Way.DIRECT), *both("allowed", Way.SOCKET, Way.PACKET))
    assert [(row[4], row[6]) for row in made] == [("direct", "dropped"), ("service", "allowed")]
    assert [row.ok for row in rows(both("no answer", Way.PACKET))] == [False]  # type: ignore[arg-type]


def test_counts_of_both_families_are_one_row_where_they_agree() -> None:
    call = CALLS[-1]
    tallies = [
        Tally(call=call, way=Way.DIRECT, family=family, expected=call.answers, seen=call.answers)
        for family in (4, 6)
    ]
    [row] = call_rows(tallies)
    assert row.cells()[4:] == ("edge", "4 6", "outside 5 times, who saw the node's address")
