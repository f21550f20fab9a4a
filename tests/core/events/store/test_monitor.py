"""`axoneme monitor --since`: what was recorded, without an agent."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import yaml
from stored import SECOND, names, records

from axoneme.core.cli import main
from axoneme.core.datapath.abi import TICK_SHIFT, EventType
from axoneme.core.events.store import segment
from axoneme.core.events.store.writer import EventStore, Limits


@pytest.fixture
def config(tmp_path: Path) -> str:
    """A store with a connection and a drop of an hour ago, and a drop of a minute ago."""
    now = time.time_ns()
    with EventStore(tmp_path / "state" / "events", Limits()) as store:
        begun = records([now - 3600 * SECOND], dport=80, sport=40000)
        ended = records([now - 3590 * SECOND], EventType.CLOSE, dport=80, sport=40000, packets=3)
        ended["created"] = (begun["time"] >> TICK_SHIFT).astype("u4")
        refused = [records([now - ago * SECOND], EventType.DROP, reason=133, dport=81) for ago in (3580, 60)]
        for one in (begun, ended, *refused):
            store.append(one, names(), offset=0)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"agent": {"state_dir": str(tmp_path / "state")}}))
    return str(path)


def run(config: str, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert main.run(["--config", config, "monitor", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


def test_recorded_events_are_told_with_their_day_and_the_names_of_then(
    config: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    lines = run(config, capsys, "--since", "2h")
    assert [line.split()[1] for line in lines] == ["new", "close", "drop", "drop"]
    assert lines[0].startswith(time.strftime("%Y-", time.gmtime(time.time() - 3600)))
    assert "prod/web" in lines[0]
    assert "Policy denied; egress by prod/p spec.egress[0] (p.yaml:4)" in lines[2]
    assert run(config, capsys, "--since", "5m") == lines[3:]
    assert run(config, capsys, "--since", "2h", "--type", "drop", "--last", "1") == lines[2:3]
    assert run(config, capsys, "--since", "2h", "--workload", "other") == []
    close = json.loads(run(config, capsys, "--since", "2h", "--type", "close", "-o", "json")[0])
    assert (close["seconds"], close["packets"]) == (pytest.approx(10, abs=0.1), 3)
    (path,) = segment.paths(tmp_path / "state" / "events")
    path.write_bytes(path.read_bytes()[:-200])
    assert main.run(["--config", config, "monitor", "--since", "2h"]) == 0
    path.write_bytes(b"rubbish" * 20)
    assert main.run(["--config", config, "monitor", "--since", "2h"]) == 0
    assert "1 pieces of the event store cannot be read" in capsys.readouterr().err
