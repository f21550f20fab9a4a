"""The commands that ask an agent, against a whole agent without a kernel."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from axoneme.core import config as configuration
from axoneme.core.cli import main
from axoneme.core.cli.commands.monitor import line
from axoneme.core.datapath.abi import EVENT, EventType
from axoneme.core.testing.agent import AgentKit

from ..sample import Sample  # noqa: TID252 - tests are no package that could be named

Shell = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
async def kit() -> AsyncIterator[AgentKit]:
    async with AgentKit([Sample()], {"plugins": {"sample": {"stage": "/* mine */"}}}) as kit:
        await kit.agent.workloads.add("web", labels={"app": "web"})
        yield kit


@pytest.fixture
def shell(kit: AgentKit, capsys: pytest.CaptureFixture[str]) -> Shell:
    async def shell(*arguments: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(main.run, ["--socket", str(kit.agent.socket), *arguments])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return shell


async def test_status_for_people_and_for_programs(shell: Shell) -> None:
    code, out, _ = await shell("status")
    assert code == 0
    assert out.splitlines()[0].endswith(": ok")
    assert out.splitlines()[3].split() == ["PLUGIN", "LEVEL", "SERVICES", "CHECKS", "RESTARTS", "REASON"]
    assert out.splitlines()[-1].split() == ["sample", "ok", "1", "1", "0"]
    assert "sample.work" in (await shell("status", "-o", "wide"))[1]
    assert json.loads((await shell("status", "-o", "json"))[1])["ok"] is True
    assert yaml.safe_load((await shell("status", "-o", "yaml"))[1])["counts"]["endpoints"] == 1
    assert (await shell("status", "--brief"))[1] == "ok\n"
    assert (await shell("status", "--wait"))[0] == 0


async def test_a_status_that_is_not_ok_exits_with_one(kit: AgentKit, shell: Shell) -> None:
    kit.configure({"plugins": {"sample": {"fail": "check"}}})
    assert await shell("reload") == (0, "generation 2 is in force\n", "")
    code, out, _ = await shell("status", "--brief")
    assert code == 1
    assert out == "failed: sample: the check itself failed: ValueError: no check today\n"
    lines = (await shell("status"))[1].splitlines()
    whole, part = (line.split(maxsplit=2) for line in lines[-2:])
    assert (whole[:2], part[1]) == (["sample", "failed"], "failed")
    assert "no check today" in part[2]
    assert (await shell("status", "--wait", "--timeout", "0"))[0] == 1


async def test_a_refused_reload_says_why(kit: AgentKit, shell: Shell) -> None:
    kit.configure({"plugins": {"sample": {"fail": "service"}}})
    code, _, err = await shell("reload")
    assert code == 1
    assert "sample: ValueError: no service today" in err
    assert "the running configuration stays in force" in err


async def test_endpoints_identities_and_resources(kit: AgentKit, shell: Shell) -> None:
    _, out, _ = await shell("endpoint", "list")
    assert out.splitlines()[0].split() == [
        "ID", "NAMESPACE", "NAME", "STATE", "IDENTITY", "IPV4", "IPV6", "INTERFACE", "REASON",
    ]  # fmt: skip
    assert out.splitlines()[1].split()[:4] == ["1", "default", "web", "ready"]
    assert "10.244.0.2" in (await shell("endpoint", "get", "web"))[1]
    code, _, err = await shell("endpoint", "get", "wbe")
    assert (code, err.splitlines()[0]) == (1, "error: there is no endpoint 'wbe'")
    identity = json.loads((await shell("endpoint", "get", "web", "-o", "json"))[1])["identity"]
    assert "k8s:app=web" in (await shell("identity", "get", str(identity)))[1]
    assert "reserved:host" in (await shell("identity", "list"))[1]
    assert (await shell("resource", "list"))[2] == "there are no resources\n"


async def test_workloads(shell: Shell) -> None:
    code, out, _ = await shell(
        "workload", "add", "db", "-l", "app=db,tier=back", "--port", "sql=5432", "-o", "json"
    )
    assert code == 0
    added = json.loads(out)
    assert {"k8s:app=db", "k8s:tier=back"} <= set(added["labels"])
    assert added["named_ports"] == {"sql": {"port": 5432, "protocol": "TCP"}}
    assert "db" in (await shell("workload", "list"))[1]
    assert await shell("workload", "remove", "db") == (0, "removed default/db\n", "")
    assert (await shell("workload", "remove", "db"))[0] == 1
    assert (await shell("workload", "add", "db", "-l", "app"))[0] == 2
    assert (await shell("workload", "add", "db", "--port", "a=b"))[0] == 2


async def test_maps_programs_and_the_datapath(shell: Shell) -> None:
    assert "sample_map" in (await shell("bpf", "map", "list"))[1]
    assert json.loads((await shell("bpf", "map", "dump", "sample_map", "-o", "json"))[1]) == [
        {"key": 1, "value": 8}
    ]
    assert (await shell("bpf", "map", "dump", "sample_mpa"))[0] == 1
    assert "from_workload" in (await shell("bpf", "program", "list"))[1]
    out = (await shell("datapath", "show"))[1]
    assert "from_workload (single, 1 attached" in out
    assert "sample" in out
    assert json.loads((await shell("datapath", "show", "-o", "json"))[1])[0]["programs"]
    assert "/* mine */" in (await shell("datapath", "source", "from_workload"))[1]
    assert (await shell("datapath", "counters"))[2] == "no packets yet\n"
    assert "axoneme_events_total" in (await shell("metrics"))[1]


async def test_plugins_and_version(shell: Shell) -> None:
    plugins = {
        row["name"]: row["state"] for row in json.loads((await shell("plugin", "list", "-o", "json"))[1])
    }
    assert plugins["sample"] == "enabled"
    versions = json.loads((await shell("version", "-o", "json"))[1])
    assert versions["axoneme"] == versions["agent"]


async def test_monitor_prints_lines_and_json(kit: AgentKit, shell: Shell) -> None:
    event = np.zeros(2, EVENT.dtype)
    event["type"], event["reason"] = (EventType.UPDATE, EventType.DROP), (0, 133)
    event["protocol"], event["source_endpoint"] = 6, 1
    before = len(kit.agent.events._listeners)

    async def watch(*more: str) -> str:
        watching = asyncio.ensure_future(shell("monitor", "--last", "1", *more))
        async with asyncio.timeout(10):
            while len(kit.agent.events._listeners) == before:  # noqa: ASYNC110 - it has no event for that
                await asyncio.sleep(0)
        kit.agent.events.publish(event)
        return (await watching)[1]

    assert json.loads(await watch("-o", "json"))["reason"] == "POLICY_DENIED"
    assert "drop  TCP    default/web" in await watch("--type", "drop")
    assert "update TCP    default/web" in await watch(
        "--type", "drop", "--type", "update"
    )  # not without being asked


def test_a_line_of_the_monitor() -> None:
    side = {"address": "fd00::1", "port": 80, "identity": 2, "labels": ["reserved:world"]}
    event = {
        "time": "2026-01-01T12:00:00.123Z", "type": "close", "protocol": "TCP",
        "source": {"address": "10.0.0.1", "port": 4000, "identity": 256, "workload": "default/web"},
        "destination": side, "egress_rule": {"id": 1, "text": "shop/web spec.egress[0]"},
        "packets": 5, "bytes": 500, "reply_packets": 4, "reply_bytes": 400,
    }  # fmt: skip
    assert line(event) == (
        "12:00:00.123Z close TCP    default/web (10.0.0.1:4000) -> reserved:world ([fd00::1]:80)  "
        "egress by shop/web spec.egress[0]; 5+4 packets, 500+400 bytes"
    )
    audited = event | {"type": "new", "verdict": "audited", "reason_text": "Policy denied"}
    assert "passes as rehearsed, else: Policy denied; egress by shop/web" in line(audited)
    assert "3 events" in line({"type": "lost", "count": 3})


# Plugins in the configuration file


@pytest.fixture
async def on_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[AgentKit, Path]]:
    """An agent whose configuration is a file, with two plugins that are installed."""
    from axoneme.core import discovery
    from axoneme.core.discovery import Found, Provenance

    plugins = {name: Sample(name) for name in ("good", "bad")}
    found = {
        name: (Found(name, Provenance(distribution="test"), lambda plugin=plugin: plugin),)
        for name, plugin in plugins.items()
    }
    monkeypatch.setattr(discovery, "discover", lambda: found)
    kit = AgentKit(folder=tmp_path, found=found)
    file = tmp_path / "config.yaml"
    text = (
        yaml.safe_dump({"agent": kit.values["agent"]})
        + "# plugins\nplugins:\n  enabled: []\n  bad: {fail: service}\n"
    )
    file.write_text(text)
    kit.agent.config = configuration.load(file, environ={})
    async with kit:
        yield kit, file


async def test_enabling_edits_the_file_and_reloads(
    on_file: tuple[AgentKit, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    kit, file = on_file

    async def shell(*arguments: str) -> int:
        return await asyncio.to_thread(main.run, ["--config", str(file), "plugin", *arguments])

    assert await shell("enable", "good") == 0
    assert "# plugins\nplugins:\n  enabled: [good]\n" in file.read_text()
    assert kit.agent.generation.assembly.manager.enabled == ["good"]  # type: ignore[union-attr]
    before = file.read_text()
    assert await shell("enable", "bad") == 1
    assert "no service today" in capsys.readouterr().err
    assert file.read_text() == before, "a refused change is taken back"
    assert kit.agent.generation.assembly.manager.enabled == ["good"]  # type: ignore[union-attr]
    assert await shell("enable", "good") == 0
    assert await shell("disable", "good") == 0
    assert kit.agent.generation.assembly.manager.enabled == []  # type: ignore[union-attr]
    assert await shell("disable", "good") == 1
    assert await shell("enable", "goood") == 1
    assert "did you mean good" in capsys.readouterr().err


def test_enabling_without_an_agent_takes_effect_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "sub" / "config.yaml"
    file.parent.mkdir()
    file.write_text(f"agent: {{run_dir: {tmp_path}}}\n")
    file.chmod(0o600)
    assert main.run(["--config", str(file), "plugin", "enable", "policy"]) == 0
    assert "takes effect at the next start" in capsys.readouterr().err
    assert configuration.load(file, environ={}).settings.plugins.enabled == ("policy",)
    assert file.stat().st_mode & 0o777 == 0o600
    assert main.run(["--config", str(file), "plugin", "list"]) == 0
    assert "enabled" in capsys.readouterr().out


# The configuration


def test_config_view_and_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("node:\n  name: here\n")
    assert main.run(["--config", str(file), "--set", "agent.name=x", "config", "view", "--changed"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [row.split() for row in shown[1:]] == [
        ["agent.name", '"x"', "--set", "agent.name"],
        ["node.name", '"here"', f"{file}:2"],
    ]
    assert main.run(["--config", str(file), "config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Axoneme configuration"
    assert main.run(["--config", str(file), "config", "check"]) == 0
    assert capsys.readouterr().out == f"{file}: good\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("plugins: {enabled: [polcy]}", "there is no plugin 'polcy'"),
        ("plugins: {enabled: [policy], policy: {peesr: 3}}", "unknown key 'peesr'"),
        ("plugins: {wat: {}}", "unknown key 'wat'"),
    ],
)
def test_config_check_names_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    assert main.run(["--config", str(file), "config", "check"]) == 1
    assert message in capsys.readouterr().err


def test_cleanup_asks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", open(tmp_path / "empty", "w+"))  # noqa: SIM115 - closed with the process
    assert main.run(["--set", f"agent.state_dir={tmp_path}/s", "cleanup"]) == 130
    assert "Remove all that the agent" in capsys.readouterr().out


@pytest.mark.parametrize("before", [True, False])
def test_the_agent_takes_its_configuration_before_and_after_its_name(
    before: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from axoneme.core import daemon

    seen = []
    monkeypatch.setattr(daemon, "main", lambda config, **options: seen.append(config.settings.agent.name))
    file = tmp_path / "config.yaml"
    file.write_text("agent: {name: other}\n")
    option = ["--config", str(file)]
    assert main.run([*option, "agent"] if before else ["agent", *option]) == 0
    assert seen == ["other"]
