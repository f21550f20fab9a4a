"""`axoneme hubble top`: what is counted, and the command over a real server."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from flow_world import World, record, records
from google.protobuf import json_format
from hubble_nodes import running

from axoneme.core.datapath.abi import EventType
from axoneme.plugins.hubble.agent_events import AgentEvents
from axoneme.plugins.hubble.cli import tally
from axoneme.plugins.hubble.cli.tally import Tally
from axoneme.plugins.hubble.cli.top import top
from axoneme.plugins.hubble.proto import observer_pb2
from axoneme.plugins.hubble.server.listening import GrpcServer, Place
from axoneme.plugins.hubble.server.observer import SERVICE, ObserverService, Self
from axoneme.plugins.hubble.server.rpc import Room


def flow(**fields: Any) -> observer_pb2.GetFlowsResponse:
    whole = {
        "verdict": "FORWARDED", "IP": {"source": "10.0.0.1", "destination": "10.0.0.2"}, "is_reply": False,
        "l4": {"TCP": {"source_port": 4000, "destination_port": 80}}, "source": {"pod_name": "web", "namespace": "shop"},
    } | fields  # fmt: skip
    return json_format.ParseDict({"flow": whole}, observer_pb2.GetFlowsResponse())


REPLY: dict[str, Any] = {
    "is_reply": True, "source": {}, "destination": {"pod_name": "web", "namespace": "shop"},
    "IP": {"source": "10.0.0.2", "destination": "10.0.0.1"}, "l4": {"TCP": {"source_port": 80, "destination_port": 4000}},
}  # fmt: skip


def test_both_directions_of_a_connection_are_one_pair_and_the_window_moves_on() -> None:
    counted = Tally(10.0)
    counted.add(flow(), 0.0)
    counted.add(flow(**REPLY), 1.0)
    for latency in range(1, 101):
        counted.add(flow(**REPLY, l7={"type": "RESPONSE", "latency_ns": latency * 1_000_000}), 2.0)
    counted.add(
        flow(verdict="DROPPED", drop_reason_desc="POLICY_DENIED", is_reply=None, destination={"identity": 2}),
        3.0,
    )
    counted.add(
        flow(verdict="DROPPED", event_type={"type": 5}, destination={"identity": 2}), 3.0
    )  # the same drop
    first, second = counted.rows(4.0, "flows")
    assert (first.client, first.server, first.port, first.flows) == ("shop/web", "10.0.0.2", "80/TCP", 102)
    assert (first.rate, first.drops, first.answers, first.latency) == (25.5, 0, 100, (51.0, 100.0))
    assert (second.server, second.drops, second.reason, second.latency) == (
        "10.0.0.2 (world)",
        1,
        "Policy denied",
        None,
    )
    assert [row.drops for row in counted.rows(4.0, "drops")] == [1, 0]
    assert [row.answers for row in counted.rows(4.0, "latency")] == [100, 0]
    assert [row.flows for row in counted.rows(11.5, "flows")] == [100, 1]
    assert counted.rows(30.0, "flows") == []


def test_what_is_kept_is_bounded_and_losses_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "PAIRS", 3)
    counted = Tally(10.0)
    for port in range(50):
        counted.add(flow(l4={"TCP": {"destination_port": port + 1}}), 1.0)
    rows = counted.rows(1.0, "flows")
    assert (len(rows), rows[0].client, rows[0].flows) == (4, "(others)", 47)
    lost = observer_pb2.GetFlowsResponse()
    lost.lost_events.num_events_lost = 9
    counted.add(lost, 1.0)
    assert counted.lost == 9


async def test_the_command_shows_what_a_server_sees(tmp_path: Path) -> None:
    world = World(policy_verdicts=False)
    service = ObserverService(world.observer, AgentEvents("n"), Self("n", "here"))
    server = GrpcServer(Place(socket=tmp_path / "s"), [service.handler(Room(10))], [SERVICE])

    def look(*more: str) -> Any:
        arguments = ["--server", f"unix://{tmp_path / 's'}", "--interval", "0.2", "--count", "3", *more]
        return CliRunner().invoke(top, arguments, standalone_mode=False, catch_exceptions=False)

    async with running(server.serve), asyncio.timeout(30):
        world.observer.take(record(EventType.DROP, reason=133))
        asked = asyncio.ensure_future(asyncio.to_thread(look, "-o", "json", "--to-port", "8080"))
        while not asked.done():
            world.observer.take(records(2))
            world.observer.take(records(1, dport=9))
            await asyncio.sleep(0.02)
        last = json.loads((await asked).output.splitlines()[-1])
        [pair] = last["pairs"]
        assert (pair["client"], pair["server"], pair["port"]) == ("shop/web", "shop/api", "8080/TCP")
        assert pair["flows"] >= 2
        assert last["lost"] == 0
        shown = await asyncio.to_thread(look, "--by", "drops")
        assert shown.output.splitlines()[0].split() == [
            "FROM", "TO", "PORT", "FLOWS/S", "FLOWS", "DROPS", "WHY", "ANSWERS", "P50", "MS", "P99", "MS",
        ]  # fmt: skip
