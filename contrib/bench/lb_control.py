"""The figures of the load balancer's control plane: from objects in the table of resources to the last write into real maps.

The maps are the kernel's, the tables the agent's own, the control plane the one that runs in the agent; there are no programs.
Times are of the process (`process_time`), so that what else runs on the machine does not count. The way to the table, from
files, is in `lb_files`.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from attrs import frozen
from figures import Figure

from axoneme.core import builtin
from axoneme.core.datapath.maps import Map
from axoneme.core.datapath.syscall import SyscallKernel
from axoneme.core.errors import Where
from axoneme.core.settings import AgentSettings, Settings
from axoneme.core.state.resources import Resource
from axoneme.core.state.table import State
from axoneme.plugins.lb.config import LbConfig
from axoneme.plugins.lb.control import INPUTS, Control
from axoneme.plugins.lb.maps import specs
from axoneme.plugins.lb.model import Endpoint, Port, Service, Slice, SlicePort
from axoneme.plugins.lb.tables import TABLES

SERVICES, BACKENDS, CHANGES = 20_000, 5, 20
_FIRST_VIP, _FIRST_BACKEND = int(IPv4Address("10.96.0.1")), int(IPv4Address("10.128.0.1"))
_WHERE = Where("bench.yaml", 1)


@frozen
class BenchContext:
    """What the control plane needs of a plugin's context."""

    config: LbConfig
    settings: Settings
    state: State
    maps: dict[str, Map]

    def map(self, name: str) -> Map:
        return self.maps[name]

    def raise_revision(self) -> None:
        """Of programs, which there are none of."""


def service_of(number: int) -> Service:
    return Service(
        namespace="bench",
        name=f"service-{number}",
        labels={"app": f"app-{number}"},
        selector={"app": f"app-{number}"},
        cluster_ips=(IPv4Address(_FIRST_VIP + number),),
        ports=(Port(80, name="http", target=8080),),
        where=_WHERE,
    )


def slice_of(number: int, *, moved: int = 0) -> tuple[Slice, ...]:
    """:param moved: how far its last backend is from where it was."""
    first = _FIRST_BACKEND + BACKENDS * number
    addresses = [first + at for at in range(BACKENDS)]
    addresses[-1] += (1 << 20) * moved
    endpoints = tuple(Endpoint((IPv4Address(one),), node="other") for one in addresses)
    name = f"service-{number}"
    return (
        Slice(
            namespace="bench",
            name=f"{name}-abc",
            service=name,
            family=4,
            ports=(SlicePort(8080, name="http"),),
            endpoints=endpoints,
            where=_WHERE,
        ),
    )


def row_of(kind: str, name: str, parsed: Any) -> Resource:
    return Resource(
        kind=kind, namespace="bench", name=name, api_version="v1", source="bench", where=_WHERE,
        raw={}, parsed=parsed,
    )  # fmt: skip


def rows(number: int) -> Iterator[Resource]:
    yield row_of("Service", f"service-{number}", service_of(number))
    yield row_of("EndpointSlice", f"service-{number}-abc", slice_of(number))


@contextlib.contextmanager
def surroundings() -> Iterator[BenchContext]:
    """Tables, and maps in the kernel, of their default sizes."""
    kernel, config, folder = SyscallKernel(), LbConfig(), Path(tempfile.mkdtemp(prefix="axoneme-bench-"))
    maps = {spec.name: Map.create(kernel, spec) for spec in specs(config.sizes)}
    try:
        state = State((*builtin.TABLES, *TABLES))
        yield BenchContext(config, Settings(agent=AgentSettings(state_dir=folder)), state, maps)
    finally:
        for each in maps.values():
            each.close()
        shutil.rmtree(folder)


@contextlib.asynccontextmanager
async def running(context: BenchContext) -> AsyncIterator[Control]:
    control: Control = Control(context)  # type: ignore[arg-type]
    ready = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(control.run(ready.set))
        await ready.wait()
        yield control
        task.cancel()


def fill(context: BenchContext) -> None:
    table = context.state.writer("resources", Resource)
    table.upsert(*(row for number in range(SERVICES) for row in rows(number)))
    for name in INPUTS:
        context.state.writer(name).mark_initialized()


async def load() -> float:
    """Seconds from a full table of resources to the last write, empty maps before."""
    with surroundings() as context:
        fill(context)
        begin = time.process_time()
        async with running(context) as control:
            seconds = time.process_time() - begin
            assert len(context.map("lb_services4").items()[0]) == 2 * SERVICES
            assert control.writes > SERVICES * (BACKENDS + 1)
        return seconds


async def update() -> list[float]:
    """Milliseconds for each of some changes of one slice."""
    samples = []
    with surroundings() as context:
        fill(context)
        table = context.state.writer("resources", Resource)
        async with running(context) as control:
            for at in range(1, CHANGES + 1):
                before, number = control.updates, at * 997 % SERVICES
                begin = time.process_time()
                row = row_of("EndpointSlice", f"service-{number}-abc", slice_of(number, moved=at))
                table.upsert(row)
                while control.updates == before:  # noqa: ASYNC110 - to wait for an event would be measured, too
                    await asyncio.sleep(0)
                samples.append(1000 * (time.process_time() - begin))
    return samples


def _sampled(measure: Callable[[], Any]) -> Callable[[int], Sequence[float]]:
    return lambda rounds: [asyncio.run(measure()) for _ in range(rounds)]


def figures() -> list[Figure]:
    return [
        Figure(
            name="lb.load.20k.tables",
            unit="s",
            limit=3.0,
            what="20,000 services with 5 backends each, from the table of resources to the last map write",
            measure=_sampled(load),
        ),
        Figure(
            name="lb.update.20k.tables",
            unit="ms",
            limit=20.0,
            what="one backend changed among them, to the last map write",
            measure=lambda _: asyncio.run(update()),
        ),
    ]
