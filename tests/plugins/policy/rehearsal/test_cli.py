"""The commands and API methods, against a whole agent without a kernel; the rehearsals in their own process."""

from __future__ import annotations

import asyncio
import base64
import json
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from axoneme.core.api.wire import RequestError
from axoneme.core.cli import main
from axoneme.core.datapath.abi import EVENT, EventType
from axoneme.core.errors import AxonemeError
from axoneme.core.testing.agent import AgentKit
from axoneme.core.workloads.endpoints import Endpoint
from axoneme.plugins.policy.rehearsal import methods
from axoneme.plugins.policy.rehearsal.live import inputs_of
from axoneme.plugins.policy.rehearsal.objects import packed

Shell = Callable[..., Awaitable[tuple[int, str, str]]]

POLICY = """\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: db, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: db}}
  ingress:
    - fromEndpoints: [{matchLabels: {app: api}}]
      toPorts: [{ports: [{port: "5432", protocol: TCP}]}]
"""


@pytest.fixture
async def kit(tmp_path: Path) -> AsyncIterator[AgentKit]:
    async with AgentKit(values={"plugins": {"enabled": ["policy"]}}, folder=tmp_path) as made:
        for name in ("db", "api", "web"):
            await made.agent.workloads.add(name, labels={"app": name})
        yield made


@pytest.fixture
def shell(kit: AgentKit, capsys: pytest.CaptureFixture[str]) -> Shell:
    """Runs commands with this agent's configuration, so that the plugin's own are there."""
    config = kit.folder / "config.yaml"
    config.write_text(yaml.safe_dump(kit.values))

    async def shell(*arguments: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(main.run, ["--config", str(config), "policy", *arguments])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return shell


def met(source: Endpoint, destination: Endpoint, port: int) -> Any:
    event = np.zeros(1, EVENT.dtype)
    event["time"], event["type"], event["protocol"] = (
        time.clock_gettime_ns(time.CLOCK_MONOTONIC),
        EventType.NEW,
        6,
    )
    event["dport"], event["sport"] = port, 40000
    for side, end in (("source", source), ("destination", destination)):
        event[f"{side}_endpoint"], event[f"{side}_identity"] = end.id, end.identity
    return event


async def recorded(kit: AgentKit, *ports: tuple[str, str, int]) -> None:
    by_name = {one.name: one for one in kit.agent.workloads.list()}
    kit.agent.events.publish(np.concatenate([met(by_name[a], by_name[b], port) for a, b, port in ports]))
    kept = kit.agent.parts.recorder  # type: ignore[union-attr]
    async with asyncio.timeout(20):
        while kept.written < len(ports):  # noqa: ASYNC110 - it has no event for that
            await asyncio.sleep(0.02)


async def test_diff_replay_and_learn(kit: AgentKit, shell: Shell) -> None:
    await recorded(kit, ("api", "db", 5432), ("web", "db", 5432), ("web", "db", 5432), ("web", "api", 8080))
    new = kit.folder / "new.yaml"
    new.write_text(POLICY)
    code, out, err = await shell("diff", "-f", str(new))
    assert (code, err) == (1, "")
    rows = [line.split() for line in out.splitlines()]
    assert rows[0] == ["added:", "default/db"]
    assert rows[1] == ["SOURCE", "DESTINATION", "PORTS", "BEFORE", "AFTER", "BY"]
    assert ["default/api", "default/db", "0-5431/TCP", "allow", "deny", "default/db", "default-deny"] in rows
    assert out.endswith("12 pairs would change\n")

    code, out, _ = await shell("replay", "-f", str(new), "--since", "1h")
    assert code == 1
    assert "would be dropped, and came through:" in out
    assert ["default/web", "default/db", "5432/TCP", "2"] in [line.split()[:4] for line in out.splitlines()]
    assert "of 4 connections in 3 flows" in out
    assert "2 would be dropped, 0 would come through" in out

    code, out, _ = await shell("learn", "-l", "app=db")
    assert code == 0
    assert out.startswith("# from 4 connections in 3 flows, ")
    learnt = yaml.safe_load(out)
    assert [one["matchLabels"] for one in learnt["spec"]["ingress"][0]["fromEndpoints"]] == [
        {"app": "api"},
        {"app": "web"},
    ]
    new.write_text(out)
    code, out, _ = await shell("replay", "-f", str(new), "-o", "json")
    assert code == 0
    assert json.loads(out)["would_drop"] == []
    assert kit.agent.state.table("resources").all() == [], "nothing was applied"


async def test_what_is_in_force_can_be_taken_away(kit: AgentKit, shell: Shell) -> None:
    kit.resource("db.yaml", POLICY)
    async with asyncio.timeout(10):
        while not inputs_of(kit.agent.context("policy")).policies:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert (await shell("diff", "-f", str(kit.folder / "resources")))[:2] == (0, "nothing would change\n")
    code, out, _ = await shell("diff", "--delete", "db")
    assert code == 1
    assert out.splitlines()[0] == "deleted: default/db"
    code, out, _ = await shell("explain", "web", "db", "5432")
    assert code == 0
    assert "default-deny" in out
    assert f"default deny is turned on by default/db ({kit.folder}/resources/db.yaml:1)" in out
    sides = json.loads((await shell("explain", "web", "db", "5432", "-o", "json"))[1])["sides"]
    assert [one["kernel"]["verdict"] for one in sides] == ["allowed", "denied"]
    assert sides[1]["kernel"]["rule"] == sides[1]["rule"]
    assert "in the kernel" not in out
    kit.agent.datapath.map("policy_subjects").update(1, {"egress": 0, "ingress": 0, "flags": 0})
    out = (await shell("explain", "api", "db", "5432"))[1]
    assert out.splitlines()[0].endswith(": denied")
    assert "  but denied in the kernel: not ready yet" in out
    assert [one["direction"] for one in sides] == ["egress", "ingress"]
    assert set(sides[1]) >= {
        "direction", "subject", "peer", "verdict", "rule", "considered", "default_deny_by", "suggestion_yaml"
    }  # fmt: skip


#: Commands, their exit codes, and words of what they say.
MISTAKES: list[tuple[tuple[str, ...], int, str]] = [
    (("diff",), 2, "say what would change"),
    (("diff", "-f", "/does/not/exist"), 2, "does not exist"),
    (("diff", "--delete", "nobody"), 2, "there is no policy 'nobody'"),
    (("diff", "-f", "BAD"), 2, "bad.yaml:6"),
    (("replay", "--delete", "nobody"), 2, "there is no policy 'nobody'"),
    (("replay", "-f", "BAD", "--since", "yesterday"), 2, "'yesterday' is no time"),
    (("learn",), 2, "Missing option"),
    (("learn", "-l", "db"), 2, "'db' is no label"),
    (("learn", "-l", "app=nobody"), 2, "no workload with app=nobody"),
    (("learn", "-l", "app=db", "--ipv4-prefix", "33"), 2, "33 does not lie in 0 to 32"),
    (("explain", "web", "nobody", "80"), 1, "nobody is known as 'nobody'"),
    (("explain", "web", "db", "80/foo"), 1, "'FOO' is no protocol"),
    (("explain", "web", "db", "80", "-f", "BAD"), 2, "go together"),
    (("verdicts", "BAD"), 1, "bad.yaml:1"),
]


async def test_mistakes_are_told_without_a_traceback(kit: AgentKit, shell: Shell) -> None:
    bad = kit.folder / "bad.yaml"
    bad.write_text(POLICY.replace("ingress:", "ingres:"))
    for arguments, code, words in MISTAKES:
        found, out, err = await shell(*(str(bad) if one == "BAD" else one for one in arguments))
        assert found == code, out + err
        assert words in err
        assert "Traceback" not in out + err


async def test_the_api_refuses_what_makes_no_sense(kit: AgentKit, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = base64.b64encode(zlib.compress(bytes(40 << 20))).decode()

    def ask(method: str, **arguments: Any) -> Any:
        with kit.client() as client:
            return client.call(method, **arguments)

    for arguments in (
        {"files": "x"},
        {"files": [["a"]]},
        {"files": [], "delete": "x"},
        {"files": [["x.yaml", ""]]},
        {"files": packed([])},
        {"files": bomb},
    ):
        with pytest.raises(RequestError):
            await asyncio.to_thread(lambda given=arguments: ask("policy.diff", **given))
    with pytest.raises(RequestError, match="are words"):
        await asyncio.to_thread(lambda: ask("policy.explain", source=1, destination="db", port="80"))
    with pytest.raises(RequestError, match="no number of seconds"):
        await asyncio.to_thread(lambda: ask("policy.replay", files=[["x.yaml", POLICY]], since=-1))
    with pytest.raises(RequestError, match="no directions"):
        await asyncio.to_thread(lambda: ask("policy.learn", selector="app=db", directions=["up"]))
    monkeypatch.setattr(methods, "TIMEOUT", 0.001)
    with pytest.raises(AxonemeError, match="took more than"):
        await asyncio.to_thread(lambda: ask("policy.diff", files=[["x.yaml", POLICY]]))
    assert kit.agent.ready


async def test_the_shell_proposes_who_is_there(
    kit: AgentKit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = kit.folder / "config.yaml"
    config.write_text(yaml.safe_dump(kit.values))
    kit.resource("db.yaml", POLICY)

    async def proposed(*words: str) -> list[str]:
        line = ["axoneme", "--config", str(config), "policy", *words]
        monkeypatch.setenv("_AXONEME_COMPLETE", "bash_complete")
        monkeypatch.setenv("COMP_WORDS", " ".join(line))
        monkeypatch.setenv("COMP_CWORD", str(len(line) - 1))
        await asyncio.to_thread(main.run, [])
        return [one.partition(",")[2] for one in capsys.readouterr().out.split()]

    assert await proposed("explain", "w") == ["web", "world", "world-ipv4", "world-ipv6"]
    assert await proposed("explain", "web", "default/d") == ["default/db"]
    assert await proposed("get", "a") == ["api"]
    async with asyncio.timeout(10):
        while (found := await proposed("diff", "--delete", "d")) != ["default/db"]:
            assert found == []
    await kit.agent.stop()
    assert await proposed("get", "a") == []
