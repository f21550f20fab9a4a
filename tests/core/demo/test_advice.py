"""What to look at next."""

from __future__ import annotations

import pytest
from attrs import evolve
from demo_results import result

from axoneme.core.demo import advice
from axoneme.core.demo.article import Way
from axoneme.core.demo.observed import Observed
from axoneme.core.demo.place import Place
from axoneme.core.demo.services import CALLS
from axoneme.core.demo.tallies import Tally


def test_the_next_steps_are_commands_that_can_be_copied() -> None:
    text = "\n".join(advice.next_steps(Place(), result(), "sudo axoneme"))
    assert "sudo axoneme --config /run/axoneme-demo/config.yaml monitor --type drop" in text
    assert "ip netns exec axo-demo-production-frontend curl -m 2 http://10.201.0.4:8080/" in text
    assert "service list" not in text, "nobody balances"
    assert "hubble" not in text


def test_what_runs_is_pointed_at() -> None:
    tally = Tally(call=CALLS[0], way=Way.PACKET, family=4, expected={}, seen={})
    made = evolve(result(), tallies=(tally,), observed=Observed(verdicts={}))
    text = "\n".join(advice.next_steps(Place(), made, "axoneme"))
    for command in ("service list", "hubble observe", "ui", "policy explain"):
        assert f"axoneme --config /run/axoneme-demo/config.yaml {command}" in text
    assert "ip netns exec axo-demo-outside curl -m 2 http://192.0.2.1:30080/" in text


def test_the_program_is_called_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advice.shutil, "which", lambda name: "/usr/bin/axoneme")
    assert advice.program("/usr/bin/axoneme") == "axoneme"
    assert advice.program("/my venv/bin/axoneme") == "'/my venv/bin/axoneme'"
    assert advice.program("/x/__main__.py") == "axoneme"
