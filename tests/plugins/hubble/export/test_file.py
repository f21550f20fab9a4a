"""Flows in files: what is written, rotation, and what happens when the disk does not take them."""

from __future__ import annotations

import asyncio
import gzip
import json
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from flow_world import World, records
from hubble_nodes import running, until

from axoneme.core.errors import AxonemeError
from axoneme.plugins.hubble.cli.files import read_flows
from axoneme.plugins.hubble.export import pump
from axoneme.plugins.hubble.export.config import ExportSettings, FileExport, request
from axoneme.plugins.hubble.export.file import JsonFile
from axoneme.plugins.hubble.export.pump import Pump
from axoneme.plugins.hubble.proto import flow_pb2, observer_pb2


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump, "DELAY", 0.02)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def exported(
    world: World, settings: FileExport, steps: Sequence[Any], count: int
) -> list[dict[str, Any]]:
    """What stands in the file once there is as much as expected."""
    async with running(Pump(world.observer, request(settings), JsonFile(settings)).run), asyncio.timeout(20):
        for step in steps:
            world.observer.take(step)
        await until(lambda: len(lines(settings.path)) >= count)
    return lines(settings.path)


async def test_flows_from_now_on_with_filters_and_fields(tmp_path: Path) -> None:
    world = World(policy_verdicts=False)
    world.observer.take(records(3))  # of before
    path = tmp_path / "made" / "flows.json"
    settings = FileExport(
        path=path, allow=({"destination_port": ["8080"]},), deny=({"source_port": ["1001"]},),
        fields=("time", "node_name", "l4", "source.pod_name"),
    )  # fmt: skip
    found = await exported(world, settings, [records(3), records(2, dport=9)], 2)
    assert [flow["flow"]["l4"]["TCP"]["source_port"] for flow in found] == [1000, 1002]
    assert found[0]["flow"].keys() == {"time", "l4", "source", "node_name"}
    assert found[0]["flow"]["source"] == {"pod_name": "web"}
    assert found[0]["node_name"] == "default/node1"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    again = list(read_flows(str(path), observer_pb2.GetFlowsRequest(number=1)))
    assert [answer.flow.l4.TCP.source_port for answer in again] == [1002]


async def test_what_was_lost_is_a_line_too_and_a_cut_line_spoils_only_itself(tmp_path: Path) -> None:
    world, path = World(flows=256, policy_verdicts=False), tmp_path / "flows.json"
    path.write_text('{"flow":{"ti')
    settings = FileExport(path=path)
    sink = JsonFile(settings)
    lost = observer_pb2.GetFlowsResponse(
        lost_events=flow_pb2.LostEvent(source=3, num_events_lost=7), node_name="n"
    )  # type: ignore[arg-type]
    sink.open()
    sink.write([lost.SerializeToString()])
    sink.close()
    assert path.read_text() == (
        '{"flow":{"ti\n{"lost_events":{"source":"HUBBLE_RING_BUFFER","num_events_lost":"7"},"node_name":"n"}\n'
    )
    assert len(world.observer.ring) == 0


@pytest.mark.parametrize(("compress", "kept"), [(False, 2), (True, 2), (False, 0)])
def test_rotation(compress: bool, kept: int, tmp_path: Path) -> None:
    path = tmp_path / "flows.json"
    sink = JsonFile(FileExport(path=path, max_size_mb=1, max_backups=kept, compress=compress))
    sink.open()
    for number in range(4):
        flow = flow_pb2.Flow(uuid=str(number), Summary="x" * (1 << 20))
        sink.write([observer_pb2.GetFlowsResponse(flow=flow).SerializeToString()])
    sink.close()
    suffix = ".gz" if compress else ""
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "flows.json",
        *(f"flows.json.{number}{suffix}" for number in range(1, kept + 1)),
    ]
    assert path.read_bytes() == b""
    for number in range(1, kept + 1):
        data = (tmp_path / f"flows.json.{number}{suffix}").read_bytes()
        text = gzip.decompress(data) if compress else data
        assert json.loads(text)["flow"]["uuid"] == str(4 - number)


class Fragile:
    """A sink that fails once, as a full disk does."""

    def __init__(self) -> None:
        self.got: list[int] = []
        self.fail = True

    def open(self) -> None:
        return

    def write(self, messages: Sequence[bytes]) -> None:
        if len(self.got) >= 2 and self.fail:
            self.fail = False
            raise AxonemeError("full")
        answers = [observer_pb2.GetFlowsResponse.FromString(message) for message in messages]
        self.got += [answer.flow.l4.TCP.source_port for answer in answers]

    def close(self) -> None:
        return


async def test_what_could_not_be_delivered_is_delivered_by_the_next_run() -> None:
    world, sink = World(policy_verdicts=False), Fragile()
    pumped = Pump(world.observer, observer_pb2.GetFlowsRequest(follow=True), sink)
    first = asyncio.ensure_future(pumped.run(lambda: None))
    async with asyncio.timeout(20):
        await asyncio.sleep(0.1)
        for number in range(4):
            world.observer.take(_one(number))
            await until(lambda number=number: len(sink.got) > number or first.done())
        with pytest.raises(AxonemeError, match="full"):
            await first
        assert sink.got == [0, 1]
        async with running(pumped.run):
            world.observer.take(_one(9))
            await until(lambda: len(sink.got) == 5)
    assert sink.got == [0, 1, 2, 3, 9]


def _one(port: int) -> Any:
    made = records(1)
    made["sport"] = port
    return made


async def test_the_last_flows_are_written_when_the_agent_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump, "DELAY", 3600)
    world, settings = World(policy_verdicts=False), FileExport(path=tmp_path / "flows.json", fields=("uuid",))
    exporting = Pump(world.observer, request(settings), JsonFile(settings))
    async with running(exporting.run), asyncio.timeout(20):
        world.observer.take(records(5))
        await until(lambda: len(exporting._batch) == 5)
    assert [flow["flow"].keys() for flow in lines(settings.path)] == [{"time", "uuid"}] * 5


async def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = FileExport(path=tmp_path / "file" / "flows.json")
    with pytest.raises(
        AxonemeError, match=r"flows\.json: flows cannot be exported: (Not a directory|File exists)"
    ):
        await Pump(World().observer, request(settings), JsonFile(settings)).run(lambda: None)


def test_settings_that_make_no_sense_are_refused() -> None:
    for values, message in (
        ({"allow": ({"nonsense": 1},)}, "nonsense"),
        ({"deny": ("x",)}, "a filter is a JSON object"),
        ({"fields": ("nonsense",)}, "invalid path"),
    ):
        with pytest.raises(ValueError, match=message):
            FileExport(path=Path("x"), **values)
    with pytest.raises(ValueError, match="two exports write to x"):
        ExportSettings(files=(FileExport(path=Path("x")), FileExport(path=Path("x"))))
