"""Another configuration takes over, or is refused, while services change: one writes at a time, and nothing is lost between two."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lb_scenes import SIZES, kit, service, slices, until, values

from axoneme.core.api.wire import RequestError
from axoneme.core.errors import PluginError
from axoneme.core.testing.agent import AgentKit
from axoneme.plugins.lb import writer
from axoneme.plugins.lb.rows import SERVICE

#: Address of each service, and its backends.
World = dict[str, list[str]]


def write(made: AgentKit, world: World) -> None:
    made.resource(
        "services.yaml",
        "".join(
            service(f"s{number}", f"clusterIP: {address}, ports: [{{port: 80}}]")
            + slices(f"s{number}", members)
            for number, (address, members) in enumerate(world.items())
        ),
    )


def in_kernel(made: AgentKit) -> dict[str, set[str]]:
    """The services' addresses, and whom their slots lead to; fails where a slot leads to nobody."""
    found = writer.read(made.agent.datapath.map)
    result = {}
    for key, value in found.rows.items():
        number, first, count, *_ = SERVICE.unpack(value)
        if not number:  # an address's row for the ports that have no service
            continue
        slots = [
            int.from_bytes(found.slots[4 * at : 4 * at + 4], "little") for at in range(first, first + count)
        ]
        members = {socket.inet_ntoa(found.backends[slot][:4]) for slot in slots}
        result[socket.inet_ntoa(key[:4])] = members
    return result


def wanted(world: World) -> dict[str, set[str]]:
    return {address: set(members) for address, members in world.items()}


def apart(made: AgentKit) -> bool:
    """Whether no two stretches overlap, except where they are the same, and no backend has two rows."""
    found = writer.read(made.agent.datapath.map)
    stretches = sorted(
        {SERVICE.unpack(value)[1:3] for value in found.rows.values() if SERVICE.unpack(value)[2]}
    )
    ends = [first + count for first, count in stretches]
    return all(end <= first for end, (first, _) in zip(ends, stretches[1:], strict=False)) and len(
        set(found.backends.values())
    ) == len(found.backends)


async def settled(made: AgentKit, world: World) -> None:
    """Once the kernel has this and nobody else's backends."""
    members = {one for each in world.values() for one in each}

    def reached() -> bool:
        rows = writer.read(made.agent.datapath.map).backends.values()
        return in_kernel(made) == wanted(world) and {socket.inet_ntoa(row[:4]) for row in rows} == members

    await until(reached)
    assert apart(made)


@contextlib.contextmanager
def taken() -> Iterator[dict[str, Any]]:
    """A section `prometheus` that cannot come to life: somebody listens there."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield {"listen": f"127.0.0.1:{other.getsockname()[1]}"}


def refused(section: dict[str, Any], **lb: Any) -> dict[str, Any]:
    return {"plugins": {"enabled": ["lb", "prometheus"], "lb": {**SIZES, **lb}, "prometheus": section}}


async def test_a_refused_configuration_leaves_nothing_in_the_maps() -> None:
    world = {f"10.96.0.{at}": [f"10.0.{at}.1", f"10.0.{at}.2"] for at in range(1, 7)}
    async with kit() as made:
        write(made, world)
        await settled(made, world)
        with taken() as section:
            made.configure(refused(section, algorithm="maglev", maglev_size=251))
            with pytest.raises(PluginError, match="the running configuration stays"):
                await made.agent.reload()
        assert made.agent.ready
        for at in range(6, 0, -1):  # one by one, each with a stretch of its own
            world[f"10.96.0.{at}"] = [f"10.0.{at}.2", f"10.0.{at}.3", f"10.0.{at}.4"]
            write(made, world)
            await settled(made, world)
        rows = writer.read(made.agent.datapath.map).rows.values()
        assert max(SERVICE.unpack(value)[2] for value in rows) == 3, "no consistent hashing"


async def test_services_change_while_another_configuration_takes_over() -> None:
    world = {f"10.96.0.{at}": [f"10.0.{at}.1", f"10.0.{at}.2"] for at in range(1, 7)}
    async with kit() as made:
        write(made, world)
        await settled(made, world)
        for turn in range(4):
            made.configure(values(algorithm=("maglev", "random")[turn % 2], maglev_size=251))
            reload = asyncio.create_task(made.agent.reload())
            churn = 0
            while not reload.done():
                at = 1 + churn % 6
                world[f"10.96.0.{at}"] = [f"10.0.{at}.{churn % 200 + 3}", f"10.0.{turn}.2"]
                write(made, world)
                churn += 1
                await asyncio.sleep(0.002)  # between two writes; nothing depends on how long
            assert await reload
            await settled(made, world)
            write(made, world := {**world, "10.96.0.7": [f"10.0.7.{turn + 1}"]})
            await settled(made, world)


async def test_a_service_that_goes_during_a_handover_has_no_row_left() -> None:
    world = {"10.96.0.1": ["10.0.1.1"], "10.96.0.2": ["10.0.2.1"]}
    async with kit() as made:
        write(made, world)
        await settled(made, world)
        (held,) = [each for each in made.agent.generation.services if each.name == "lb.services"]  # type: ignore[union-attr]
        await held.hold()
        assert held.health().reason == "another configuration is about to take over"
        write(made, {"10.96.0.1": ["10.0.1.1"]})
        await until(lambda: len(made.agent.state.table("resources")) == 2)
        assert len(made.agent.state.table("services")) == 2
        held.resume()
        await settled(made, {"10.96.0.1": ["10.0.1.1"]})
        assert [row.name for row in made.agent.state.table("services")] == ["s0"]
        assert [row.name for row in made.agent.state.table("backends")] == ["s0"]


async def test_a_service_that_is_added_meanwhile_is_there_or_refused(tmp_path: Path) -> None:
    def wish(at: int) -> dict[str, Any]:
        member = {"address": f"10.0.0.{at}", "port": 80}
        return {"name": f"extra{at}", "vips": [f"10.97.0.{at}"], "port": 80, "backends": [member]}

    async with kit(tmp_path) as made:
        call = made.client().call
        (held,) = [each for each in made.agent.generation.services if each.name == "lb.services"]  # type: ignore[union-attr]
        await held.hold()
        with pytest.raises(RequestError, match="cannot be changed at this moment") as caught:
            await asyncio.to_thread(call, "service.add", **wish(1))
        assert "again" in (caught.value.hint or "")
        held.resume()
        await until(lambda: held.ready)
        world: World = {}
        for turn in range(4):
            made.configure(values(algorithm=("maglev", "random")[turn % 2], maglev_size=251))
            reload: asyncio.Task[bool] | None = None
            for at in range(1 + 60 * turn, 60 + 60 * turn):
                with contextlib.suppress(RequestError):
                    await asyncio.to_thread(call, "service.add", **wish(at))
                    world[f"10.97.0.{at}"] = [f"10.0.0.{at}"]
                if reload is not None and reload.done():
                    break
                reload = reload or asyncio.create_task(made.agent.reload())
            assert reload is not None
            assert await reload
        await settled(made, world)
        await asyncio.to_thread(call, "service.add", **wish(250))
        await settled(made, {**world, "10.97.0.250": ["10.0.0.250"]})
