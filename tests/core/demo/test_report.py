"""What programs get."""

from __future__ import annotations

import json

from attrs import evolve
from demo_results import WRONG, result

from axoneme.core.demo.article import Way
from axoneme.core.demo.observed import Observed
from axoneme.core.demo.report import report
from axoneme.core.demo.services import CALLS
from axoneme.core.demo.tallies import Tally


def test_it_has_everything() -> None:
    made = json.loads(json.dumps(report(result(WRONG))))
    assert not made["ok"]
    assert made["counts"] == {"requests": 198, "allowed": 151, "dropped": 46, "differing": 1}
    assert made["resources"][1] == {
        "file": "l7-traffic-split.yaml",
        "in_force": False,
        "waits_for": ["envoy"],
    }
    [wrong] = [row for row in made["requests"] if not row["ok"]]
    assert (wrong["source"], wrong["family"], wrong["way"], wrong["seen"]) == (
        "frontend",
        "IPv6",
        "direct",
        "no answer",
    )
    [dropped, *_] = [row for row in made["requests"] if row["seen"] == "dropped"]
    assert dropped["rules"][0]["effect"] == "default-deny"
    assert dropped["reason"] == "Policy denied"
    assert (made["services"], made["flows"]) == ([], {})


def test_services_and_flows() -> None:
    call = CALLS[0]
    tally = Tally(call=call, way=Way.SOCKET, family=6, expected=call.answers, seen={"no answer": 20})
    made = report(evolve(result(), tallies=(tally,), observed=Observed(verdicts={"DROPPED": 3})))
    [row] = json.loads(json.dumps(made))["services"]
    assert (row["service"], row["way"], row["family"], row["ok"]) == ("api-service", "socket", "IPv6", False)
    assert row["seen"] == {"no answer": 20}
    assert made["flows"] == {"DROPPED": 3}
