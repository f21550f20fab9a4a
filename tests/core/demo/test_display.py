"""What people get to see."""

from __future__ import annotations

import io

import pytest
from attrs import evolve
from demo_results import WRONG, result
from rich.console import Console

from axoneme.core.demo import display
from axoneme.core.demo.article import Way
from axoneme.core.demo.display import Lines, Terminal, differing, summary
from axoneme.core.demo.observed import Observed
from axoneme.core.demo.running import Result
from axoneme.core.demo.services import CALLS
from axoneme.core.demo.tallies import Tally


def test_the_summary_counts_and_judges() -> None:
    assert summary(result()) == "198 requests in 1.2 s: 152 allowed, 46 dropped; all as the article says"
    assert summary(result(WRONG)).endswith("151 allowed, 46 dropped, 1 neither; 1 NOT as the article says")
    assert "46 dropped; 20 more through services; all as" in summary(counted())


def test_lines_end_with_the_rows_that_differ() -> None:
    said: list[str] = []
    lines = Lines(said.append)
    lines.step("agent", "is starting")
    for each in result(WRONG).verdicts:
        lines.verdict(each)
    assert len(said) == 1
    lines.result(result(WRONG))
    text = "\n".join(said)
    assert text.startswith("agent     is starting")
    assert text.count("<- differs") == 1
    assert text.index("These differ:") < text.rindex(
        "frontend         cache            6379       6    direct   allowed   no answer"
    )
    assert "  backend ingress default-deny" in text


def test_nothing_differs_nothing_is_repeated() -> None:
    assert differing(result()) == []


def test_a_closed_pipe_silences_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*arguments: object, **more: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(display.click, "echo", closed)
    Lines().step("agent", "is starting")


def test_a_terminal_gets_the_whole_table_in_the_end_with_what_was_decided_last() -> None:
    stream = io.StringIO()
    terminal = Terminal(Console(file=stream, force_terminal=True, width=160, height=10, highlight=False))
    terminal.step("agent", "is starting")
    for each in result().verdicts:
        terminal.verdict(each)
    terminal.result(result())
    last = stream.getvalue()[stream.getvalue().rindex("DECIDED BY") :].splitlines()
    decided = ["no policy" not in line for line in last[1:25]]
    assert decided == sorted(decided)
    assert sum(decided) == 14
    assert "198 requests" in last[-1]


def counted(first: int = 18) -> Result:
    """With one count of a service's answers, and with what Hubble saw."""
    call = CALLS[0]
    made = Tally(
        call=call,
        way=Way.PACKET,
        family=4,
        expected=call.answers,
        seen={"api-service-v1": first, "api-service-v2": 20 - first},
    )
    seen = Observed(
        verdicts={"ALLOWED": 9, "DENIED": 46, "DROPPED": 46, "FORWARDED": 500}, samples=("a line",)
    )
    return evolve(result(), tallies=(made,), observed=seen)


def shown(result: Result, *, terminal: bool) -> str:
    if terminal:
        stream = io.StringIO()
        Terminal(Console(file=stream, width=240, highlight=False)).result(result)
        return stream.getvalue()
    said: list[str] = []
    Lines(said.append).result(result)
    return "\n".join(said)


@pytest.mark.parametrize("terminal", [False, True])
def test_who_answered_for_services_and_what_hubble_saw(terminal: bool) -> None:
    text = shown(counted(), terminal=terminal)
    assert "api-service-v1 18 times, api-service-v2 2 times" in text
    assert "Hubble saw 601 flows: 46 dropped, 500 forwarded" in text
    assert "policies said: 9 allowed, 46 denied\na line" in text
    assert "These differ" not in text


@pytest.mark.parametrize("terminal", [False, True])
def test_a_share_that_is_not_the_expected_one_differs(terminal: bool) -> None:
    assert counted(17).wrong == 1
    repeated = shown(counted(17), terminal=terminal).partition("These differ:")[2]
    assert "api-service-v1 17 times" in repeated
    assert "expected api-service-v1 18 times, api-service-v2 2 times" in repeated


def test_hubble_has_to_see_every_drop() -> None:
    blind = evolve(counted(), observed=Observed(verdicts={}, problem="error: the agent is not running"))
    assert blind.wrong == 1
    assert "Hubble saw nothing: error: the agent is not running" in shown(blind, terminal=False)
