"""`axoneme bpf ct` and `bpf nat`, as scripts read them, against a whole agent without a kernel."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from axoneme.core.cli import main
from axoneme.core.datapath.abi import TICK_SHIFT, ConnectionFlag
from axoneme.core.testing.agent import AgentKit

Shell = Callable[..., Awaitable[list[str]]]

CLIENT, BACKEND, VIP, NODE = (0x0A000001, 4000), (0x0A000002, 8080), (0x0A600001, 80), (0xC0A80001, 5000)
WORLD = (0x01010101, 443)


@pytest.fixture
async def kit() -> AsyncIterator[AgentKit]:
    async with AgentKit([], {}) as kit:
        yield kit


@pytest.fixture
def shell(kit: AgentKit, capsys: pytest.CaptureFixture[str]) -> Shell:
    async def shell(*arguments: str) -> list[str]:
        code = await asyncio.to_thread(main.run, ["--socket", str(kit.agent.socket), "bpf", *arguments])
        shown = capsys.readouterr()
        assert (code, shown.err) == (0, "")
        return shown.out.splitlines()

    return shell


def enter(kit: AgentKit, source: Any, destination: Any, goes: Any = None, ago: int = 0, **value: Any) -> None:
    now = (time.clock_gettime_ns(time.CLOCK_MONOTONIC) >> TICK_SHIFT) & 0xFFFFFFFF
    if goes is not None:
        value["flags"] = value.get("flags", 0) | ConnectionFlag.NAT
        for side, (address, port) in zip("sd", goes, strict=True):
            value |= {f"nat_{side}addr": {"a": (address,)}, f"nat_{side}port": port}
    kit.agent.datapath.map("connections4").update(
        {
            "saddr": {"a": (source[0],)}, "daddr": {"a": (destination[0],)},
            "sport": source[1], "dport": destination[1], "protocol": 6,
        },
        {"last_seen": now - ago & 0xFFFFFFFF, "created": now, "packets": 2, "bytes": 100, "source_identity": 300, **value},
    )  # fmt: skip


async def test_connections(kit: AgentKit, shell: Shell) -> None:
    local = {"source_endpoint": 1, "destination_endpoint": 2}
    earlier = 100 * 10**9 >> TICK_SHIFT
    enter(kit, CLIENT, VIP, (CLIENT, BACKEND), earlier, service=7, backend=3, tcp_sent=3, tcp_seen=2, **local)
    enter(kit, BACKEND, CLIENT, (VIP, CLIENT), flags=ConnectionFlag.REPLY, service=7, backend=3)
    enter(kit, CLIENT, WORLD, (NODE, WORLD), source_endpoint=1)
    lines = await shell("ct", "list", "global")
    assert [line.split(" expires=")[0] for line in sorted(lines)] == [
        "TCP IN 10.0.0.1:4000 -> 10.0.0.2:8080",
        "TCP OUT 10.0.0.1:4000 -> 1.1.1.1:443",
        "TCP OUT 10.0.0.1:4000 -> 10.0.0.2:8080",
        "TCP SVC 10.0.0.1:4000 -> 10.96.0.1:80",
    ]
    form = (
        r"TCP OUT 10\.0\.0\.1:4000 -> 10\.0\.0\.2:8080 expires=\d+ Packets=4 Bytes=200 RxFlagsSeen=0x02 "
        r"LastRxReport=(\d+) TxFlagsSeen=0x03 LastTxReport=(\d+) Flags=0x0002 \[ TxClosing \] RevNAT=7 SourceSecurityID=300 BackendID=3"
    )
    (found,) = [match for line in lines if (match := re.fullmatch(form, line))]
    for when, earlier in zip(found.groups(), (0, 100), strict=True):
        assert abs(time.clock_gettime(time.CLOCK_MONOTONIC) - earlier - int(when)) < 5
    assert all("LastRxReport=0 " in line for line in lines if " OUT " in line and "1.1.1.1" in line), (
        "no answer"
    )
    incoming = next(line for line in lines if " IN " in line)
    assert re.search(
        r"RxFlagsSeen=0x03 LastRxReport=\d+ TxFlagsSeen=0x02 LastTxReport=\d+ Flags=0x0001 \[ RxClosing \]",
        incoming,
    )
    assert int(re.findall("LastRxReport=([0-9]+)", incoming)[0]) == int(found[2])
    assert all(
        re.search(r"expires=\d+ \(remaining: \d+ sec\(s\)\) P", line)
        for line in await shell("ct", "ls", "-d")
    )
    assert len(await shell("ct", "list", "--address", "10.96.0.1:80")) == 3
    assert await shell("ct", "list", "--protocol", "udp") == []
    records = json.loads("\n".join(await shell("ct", "list", "global", "-o", "json")))
    assert [one["Key"]["Flags"] for one in records].count(4) == 1
    assert {"DestAddr": "10.96.0.1", "SourceAddr": "10.0.0.1", "DestPort": 80, "SourcePort": 4000, "NextHeader": 6,
            "Flags": 4} in [one["Key"] for one in records]  # fmt: skip


async def test_translations_and_flushing(kit: AgentKit, shell: Shell) -> None:
    enter(kit, CLIENT, VIP, (CLIENT, BACKEND), service=7)
    enter(kit, CLIENT, WORLD, (NODE, WORLD))
    enter(kit, WORLD, NODE, (WORLD, CLIENT), flags=ConnectionFlag.REPLY)
    enter(kit, (CLIENT[0], 4001), BACKEND)
    assert [re.sub(r"\d+sec", "Nsec", line) for line in await shell("nat", "list")] == [
        "TCP OUT 10.0.0.1:4000 -> 1.1.1.1:443 XLATE_SRC 192.168.0.1:5000 Created=Nsec ago NeedsCT=1",
        "TCP IN 1.1.1.1:443 -> 192.168.0.1:5000 XLATE_DST 10.0.0.1:4000 Created=Nsec ago NeedsCT=1",
    ]
    records = json.loads("\n".join(await shell("nat", "list", "-o", "json")))
    assert [(one["Value"]["Addr"], one["Value"]["Port"], one["Value"]["NeedsCT"]) for one in records] == [
        ("192.168.0.1", 5000, 1), ("10.0.0.1", 4000, 1),
    ]  # fmt: skip
    assert await shell("nat", "flush") == [
        "Flushed 3 entries from connections4", "Flushed 0 entries from connections6",
    ]  # fmt: skip
    assert len(await shell("ct", "list")) == 1
    assert (await shell("ct", "flush", "global"))[0] == "Flushed 1 entries from connections4"
    assert await shell("ct", "list") == []


async def test_flags_that_follow_from_the_ends(kit: AgentKit, shell: Shell) -> None:
    enter(
        kit, CLIENT, VIP, ((0xA9FE2A01, 4000), CLIENT), service=7, source_endpoint=1, destination_endpoint=1
    )
    enter(kit, WORLD, VIP, (WORLD, BACKEND), service=7, destination_endpoint=2)
    flags = {
        line.split(" -> ")[0]: re.findall(r"Flags=(.*) RevNAT", line)[0] for line in await shell("ct", "list")
    }
    assert flags == {
        "TCP IN 10.0.0.1:4000": "0x0008 [ LBLoopback ]", "TCP OUT 10.0.0.1:4000": "0x0008 [ LBLoopback ]",
        "TCP SVC 10.0.0.1:4000": "0x0008 [ LBLoopback ]", "TCP IN 1.1.1.1:443": "0x0020 [ NodePort ]",
        "TCP SVC 1.1.1.1:443": "0x0020 [ NodePort ]",
    }  # fmt: skip


@pytest.mark.parametrize("command", ["ct list", "ct flush", "nat list", "nat flush"])
async def test_there_is_one_cluster(kit: AgentKit, capsys: pytest.CaptureFixture[str], command: str) -> None:
    def run(*words: str) -> int:
        return main.run(["--socket", str(kit.agent.socket), "bpf", *command.split(), *words])

    assert await asyncio.to_thread(run, "global") == 0
    assert await asyncio.to_thread(run, "cluster", "3") == 2
    assert "one cluster" in capsys.readouterr().err
    assert await asyncio.to_thread(run, "endpoint", "3") == 2
    assert "there is 'global'" in capsys.readouterr().err
