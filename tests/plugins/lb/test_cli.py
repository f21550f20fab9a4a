"""What the commands print, as scripts read it: the layout and the JSON of `cilium-dbg`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from lb_scenes import kit, service, slices, until

from axoneme.core.cli import main
from axoneme.core.testing.agent import AgentKit
from axoneme.plugins.lb import control

Shell = Callable[..., Awaitable[str]]

MANIFEST = service(
    "web",
    'type: LoadBalancer, clusterIPs: [10.96.0.10, "fd00:96::a"], externalIPs: [203.0.113.5], externalTrafficPolicy: Local, '
    "ports: [{port: 80}], sessionAffinity: ClientIP",
    annotations="{service.cilium.io/type: 'ClusterIP,ExternalIPs'}",
) + slices(
    "web",
    [
        "10.0.0.1 nodeName: other",
        "10.0.0.2",
        "10.0.0.3 conditions: {ready: false}",
        "10.0.0.4 conditions: {ready: false, serving: true, terminating: true}",
    ],
)
RANGES = service(
    "ranged",
    "type: LoadBalancer, clusterIP: 10.96.0.20, ports: [{port: 53, protocol: UDP}], "
    "loadBalancerSourceRanges: [198.51.100.0/24]",
    annotations="{service.cilium.io/lb-algorithm: maglev, service.axoneme.io/maglev-table-size: '251'}",
) + slices("ranged", ["10.0.0.9"]).replace("protocol: TCP", "protocol: UDP")
POOL = """\
apiVersion: cilium.io/v2
kind: CiliumLoadBalancerIPPool
metadata: {name: blue}
spec: {blocks: [{cidr: 203.0.113.6/32}], serviceSelector: {matchLabels: {io.kubernetes.service.name: ranged}}}
---
"""
HEADLESS = service("headless", "clusterIP: None, ports: [{port: 80}]")


@pytest.fixture
async def made() -> AsyncIterator[AgentKit]:
    async with kit() as made:
        made.resource("web.yaml", MANIFEST + RANGES + HEADLESS + POOL)
        await until(lambda: len(control.of(made.agent.context("lb")).engine.resolved) == 3)
        await until(lambda: len(made.agent.datapath.map("lb_services6").items()[0]) == 2)
        yield made


@pytest.fixture
def shell(made: AgentKit, capsys: pytest.CaptureFixture[str]) -> Shell:
    async def shell(*arguments: str) -> str:
        config = ["--socket", str(made.agent.socket), "--set", "plugins.enabled=[lb]"]
        code = await asyncio.to_thread(main.run, [*config, *arguments])
        shown = capsys.readouterr()
        assert (code, shown.err) == (0, "")
        return shown.out

    return shell


async def test_services(shell: Shell) -> None:
    lines = (await shell("service", "list")).splitlines()
    assert lines[0].split("   ")[0] == "ID"
    assert lines[0].replace("Service Type", "Service_Type").split() == [
        "ID",
        "Frontend",
        "Service_Type",
        "Backend",
    ]
    start = lines[0].index("Backend")
    web = [number for number, line in enumerate(lines) if " 10.96.0.10:80/TCP " in line]
    assert lines[web[0]].split()[2:] == ["ClusterIP", "1", "=>", "10.0.0.1:8080/TCP", "(active)"]
    assert lines[web[0] + 1] == " " * start + "2 => 10.0.0.2:8080/TCP (active)"
    assert lines[web[0] + 2] == " " * start + "3 => 10.0.0.4:8080/TCP (terminating)"
    ids = [int(line[:5]) for line in lines[1:] if line[0] != " "]
    assert ids == sorted(ids)
    assert "headless" not in "\n".join(lines)
    assert await shell("service", "ls") == "\n".join(lines) + "\n"
    wide = await shell("service", "list", "-o", "wide")
    assert "3 => 10.0.0.3:8080/TCP (unready), unused: not ready" in wide
    assert "default/headless" in wide
    problems = await shell("service", "list", "--problems")
    assert "! " in problems
    assert "default/ranged" not in problems


async def test_services_as_json(shell: Shell) -> None:
    models = json.loads(await shell("service", "list", "-o", "json"))
    model = next(one for one in models if one["spec"].get("frontend-address", {}).get("ip") == "10.96.0.10")
    assert model["status"]["realized"] == model["spec"]
    assert model["spec"]["frontend-address"] == {
        "ip": "10.96.0.10",
        "port": 80,
        "protocol": "TCP",
        "scope": "external",
    }
    assert model["spec"]["flags"] == {
        "extTrafficPolicy": "Local", "intTrafficPolicy": "Cluster", "name": "web", "namespace": "default",
        "trafficPolicy": "Local", "type": "ClusterIP",
    }  # fmt: skip
    first = model["spec"]["backend-addresses"][0]
    assert first == {
        "ip": "10.0.0.1", "port": 8080, "protocol": "TCP", "nodeName": "other", "preferred": False, "state": "active",
        "weight": 1,
    }  # fmt: skip
    number = model["spec"]["id"]
    assert json.loads(await shell("service", "get", str(number), "-o", "json")) == model
    assert model in json.loads(await shell("service", "get", "web", "-o", "json"))
    headless = next(one for one in models if one["spec"]["flags"]["name"] == "headless")
    assert "realized" not in headless["status"]
    assert headless["status"]["problems"]


async def test_whom_others_are_passed_over_for(made: AgentKit, shell: Shell) -> None:
    here = made.agent.settings.node.node_name()
    text = service("near", "clusterIP: 10.96.0.30, internalTrafficPolicy: Local, ports: [{port: 80}]")
    rows = ["10.0.0.5 nodeName: other", f"10.0.0.6 nodeName: {here}"]
    made.resource("near.yaml", text + slices("near", rows))
    await until(lambda: len(control.of(made.agent.context("lb")).engine.resolved) == 4)

    async def near(*more: str) -> list[str]:
        lines = (await shell("service", "list", *more)).splitlines()
        at = next(number for number, line in enumerate(lines) if " 10.96.0.30:80/TCP " in line)
        start = lines[0].index("Backend")
        return [lines[at][start:], *(line[start:] for line in lines[at + 1 : at + 2] if line[0] == " ")]

    assert await near() == ["1 => 10.0.0.6:8080/TCP (active)"]
    assert await near("--clustermesh-affinity") == [
        "1 => 10.0.0.5:8080/TCP (active)", "2 => 10.0.0.6:8080/TCP (active) (preferred)",
    ]  # fmt: skip
    plain = [
        line
        for line in (await shell("service", "list", "--clustermesh-affinity")).splitlines()
        if "10.0.0.1:" in line
    ]
    assert plain, "where nobody is passed over"
    assert not any("preferred" in line for line in plain)
    models = json.loads(await shell("service", "get", "near", "-o", "json"))
    assert [one["preferred"] for one in models[0]["spec"]["backend-addresses"]] == [True]


async def texts(shell: Shell, *arguments: str) -> Any:
    return json.loads(await shell("bpf", "lb", "list", *arguments, "-o", "json"))


async def test_maps_of_services(shell: Shell) -> None:
    found = await texts(shell)
    numbers = {
        key: text[0].split("(")[1].split(")")[0] for key, text in found.items() if key.endswith(" (0)")
    }
    cluster, outside = numbers["10.96.0.10:80/TCP (0)"], numbers["203.0.113.5:80/TCP (0)"]
    assert found["10.96.0.10:80/TCP (0)"] == [
        f"0.0.0.0:0 ({cluster}) (0) [ClusterIP, sessionAffinity, non-routable]"
    ]
    assert found["10.96.0.10:80/TCP (1)"] == [f"10.0.0.1:8080/TCP ({cluster}) (1)"]
    assert found["203.0.113.5:80/TCP (0)"] == [
        f"0.0.0.0:0 ({outside}) (0) [ExternalIPs, Local, two-scopes, sessionAffinity]"
    ]
    assert "203.0.113.5:80/TCP (1)" not in found, "no backend is on this node"
    assert "203.0.113.5:80/TCP/i (1)" in found
    assert found["[fd00:96::a]:80/TCP (0)"][0].startswith("[::]:0 (")
    assert found["10.96.0.10:0/ANY (0)"] == ["0.0.0.0:0 (0) (0) [ClusterIP, non-routable]"]
    lines = (await shell("bpf", "lb", "ls")).splitlines()
    assert [part.strip() for part in lines[0].split("   ") if part] == [
        "SERVICE ADDRESS", "BACKEND ADDRESS (REVNAT_ID) (SLOT)",
    ]  # fmt: skip
    assert f"10.0.0.1:8080/TCP ({cluster}) (1)" in "\n".join(lines)
    assert (await texts(shell, "--revnat"))[cluster] == ["10.96.0.10:80"]
    assert (await texts(shell, "--frontends"))["10.96.0.10:80/TCP (0)"][0].startswith(f"0 2 ({cluster}) [")
    assert ["TCP://10.0.0.1:8080"] in (await texts(shell, "--backends")).values()
    (ranged,) = await texts(shell, "--source-ranges")
    assert ranged == f"198.51.100.0/24 ({numbers['203.0.113.6:53/UDP (0)']})"
    for view in ((), ("--backends",), ("--frontends",), ("--revnat",), ("--source-ranges",)):
        assert len((await shell("bpf", "lb", "list", *view, "-o", "wide")).splitlines()) > 1


async def test_tables_of_maglev(shell: Shell) -> None:
    tables = json.loads(await shell("bpf", "lb", "maglev", "list", "-o", "json"))
    number = next(iter(tables))
    assert len(tables[number][0].strip("[]").split()) == 251
    assert json.loads(await shell("lb", "maglev", "get", number, "-o", "json")) == {number: tables[number]}
    lines = (await shell("bpf", "lb", "maglev", "list")).splitlines()
    assert lines[0].split("   ") == ["SVC ID", "LOOKUP TABLE"]
    assert lines[1].split("   ")[0].strip() == number
    assert "251" in await shell("lb", "maglev", "list", "-o", "wide")
