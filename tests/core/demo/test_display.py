"""What people and programs get to see."""

from __future__ import annotations

import io
import json
from ipaddress import IPv4Address, IPv6Address

import pytest
from rich.console import Console

from axoneme.core.demo import display
from axoneme.core.demo.article import APPS, Flow, expected, flows
from axoneme.core.demo.display import Lines, Pairs, Terminal, differing, next_steps, report, rows, summary
from axoneme.core.demo.place import Place
from axoneme.core.demo.running import Result
from axoneme.core.demo.verdicts import Decision, Verdict
from axoneme.core.workloads.endpoints import Endpoint, EndpointState

ACTIVE = ("l4-lb-policy.yaml",)
DENY = Decision(
    direction="ingress", id=7, policy="production/backend", path="default-deny", effect="default-deny"
)


def endpoint(number: int, name: str) -> Endpoint:
    return Endpoint(
        id=number, name=name, namespace="production", ifindex=number, ifname=f"axo{number}", mac="", node_mac="",
        ipv4=IPv4Address(f"10.201.0.{number}"), ipv6=IPv6Address(f"fd00:201::{number}"), identity=255 + number,
        labels=(), netns=f"/run/netns/axo-demo-production-{name}", state=EndpointState.READY,
    )  # fmt: skip


def verdict(flow: Flow, seen: str | None = None) -> Verdict:
    wanted = expected(flow, ACTIVE)
    dropped = wanted == "dropped"
    return Verdict(
        flow=flow,
        expected=wanted,
        seen=seen or wanted,
        reason="Policy denied" if dropped else "",
        decisions=(DENY,) if dropped else (),
    )


def result(*wrong: Flow) -> Result:
    return Result(
        endpoints={app.name: endpoint(number, app.name) for number, app in enumerate(APPS, 1)},
        active=ACTIVE,
        waiting={"l7-traffic-split.yaml": ("envoy",)},
        verdicts=tuple(verdict(flow, "no answer" if flow in wrong else None) for flow in flows()),
        seconds=1.25,
    )


WRONG = Flow("frontend", "cache", 6379, 6)


def test_both_families_are_one_row_where_they_agree() -> None:
    made = rows(result().verdicts)
    assert len(made) == len(result().verdicts) / 2
    assert made[0].cells()[3] == "4 6"


def test_and_two_rows_where_they_do_not() -> None:
    pairs = Pairs()
    four, six = Flow("a", "b", 1, 4), Flow("a", "b", 1, 6)
    assert pairs.add(verdict(six, "dropped")) == ()
    first, second = pairs.add(verdict(four))
    assert (first.cells()[3], second.cells()[3]) == ("4", "6")
    assert first.ok
    assert not second.ok


def test_the_summary_counts_and_judges() -> None:
    assert summary(result()) == "126 requests in 1.2 s: 92 allowed, 34 dropped; all as the article says"
    assert summary(result(WRONG)).endswith("91 allowed, 34 dropped, 1 neither; 1 NOT as the article says")


def test_lines_end_with_the_rows_that_differ() -> None:
    said: list[str] = []
    lines = Lines(said.append)
    lines.step("agent", "is starting")
    for each in result(WRONG).verdicts:
        lines.verdict(each)
    lines.result(result(WRONG))
    text = "\n".join(said)
    assert text.startswith("agent     is starting")
    assert text.count("<- differs") == 1
    assert text.index("These differ:") < text.rindex(
        "frontend         cache            6379  6    allowed   no answer"
    )
    assert "production/backend ingress default-deny" in text


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
    decided = ["no policy" not in line for line in last[1:64]]
    assert decided == sorted(decided)
    assert sum(decided) == 17
    assert "126 requests" in last[-1]


def test_the_report_has_everything_for_programs() -> None:
    made = json.loads(json.dumps(report(result(WRONG))))
    assert not made["ok"]
    assert made["counts"] == {"requests": 126, "allowed": 91, "dropped": 34, "differing": 1}
    assert made["resources"][1] == {
        "file": "l7-traffic-split.yaml",
        "in_force": False,
        "waits_for": ["envoy"],
    }
    [wrong] = [row for row in made["requests"] if not row["ok"]]
    assert (wrong["source"], wrong["family"], wrong["seen"]) == ("frontend", "IPv6", "no answer")
    [dropped, *_] = [row for row in made["requests"] if row["seen"] == "dropped"]
    assert dropped["rules"][0]["effect"] == "default-deny"
    assert dropped["reason"] == "Policy denied"


def test_the_next_steps_are_commands_that_can_be_copied() -> None:
    text = "\n".join(next_steps(Place(), result(), "sudo axoneme"))
    assert "sudo axoneme --config /run/axoneme-demo/config.yaml monitor --type drop" in text
    assert "ip netns exec axo-demo-production-frontend curl -m 2 http://10.201.0.4:8080/" in text


def test_the_program_is_called_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display.shutil, "which", lambda name: "/usr/bin/axoneme")
    assert display.program("/usr/bin/axoneme") == "axoneme"
    assert display.program("/my venv/bin/axoneme") == "'/my venv/bin/axoneme'"
    assert display.program("/x/__main__.py") == "axoneme"
