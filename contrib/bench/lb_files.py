"""The figures of services in files: from files on disk to the last write into real maps, by the agent's own source of resources.

Loading is measured by the clock on the wall, since reading files is part of it; so is what becomes of a change, from the
moment on when its file is in place. The maps are the kernel's; there are no programs.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import yaml
from figures import Figure
from lb_control import BACKENDS, CHANGES, SERVICES, BenchContext, surroundings

from axoneme.core.state.ingest import FolderSource
from axoneme.plugins.lb.control import INPUTS, Control
from axoneme.plugins.lb.kinds import resource_kinds

#: Services in a file that has many.
MANY = 100
_FIRST_VIP, _FIRST_BACKEND = int(IPv4Address("10.96.0.1")), int(IPv4Address("10.128.0.1"))


def service_of(number: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": f"service-{number}",
            "namespace": "bench",
            "labels": {"app": f"app-{number}"},
        },
        "spec": {
            "selector": {"app": f"app-{number}"},
            "clusterIP": str(IPv4Address(_FIRST_VIP + number)),
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
        },
    }


def slice_of(number: int, *, moved: int = 0) -> dict[str, Any]:
    """:param moved: how far its last backend is from where it was."""
    first = _FIRST_BACKEND + BACKENDS * number
    addresses = [first + at for at in range(BACKENDS)]
    addresses[-1] += (1 << 20) * moved
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"service-{number}-abc",
            "namespace": "bench",
            "labels": {"kubernetes.io/service-name": f"service-{number}"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [
            {
                "addresses": [str(IPv4Address(address))],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "nodeName": "other",
                "targetRef": {"kind": "Pod", "name": f"pod-{number}-{at}", "namespace": "bench"},
            }
            for at, address in enumerate(addresses)
        ],
    }


def objects(numbers: range) -> Iterator[dict[str, Any]]:
    for number in numbers:
        yield service_of(number)
        yield slice_of(number)


def text_of(rows: Iterator[dict[str, Any]], form: str) -> str:
    """A list as of `kubectl get -o json`, but with a line for each object; or documents of YAML."""
    if form == "json":
        return (
            '{"apiVersion": "v1", "items": [\n' + ",\n".join(map(json.dumps, rows)) + '\n], "kind": "List"}'
        )
    return "---\n".join(yaml.dump(row, Dumper=yaml.CSafeDumper, sort_keys=False) for row in rows)


@contextlib.contextmanager
def folder(form: str, each: int = MANY) -> Iterator[Path]:
    """All services in files, `each` per file."""
    with tempfile.TemporaryDirectory(prefix="axoneme-bench-") as name:
        for number in range(0, SERVICES, each):
            numbers = range(number, number + each)
            Path(name, f"{number:05}.{form}").write_text(text_of(objects(numbers), form))
        yield Path(name)


@contextlib.asynccontextmanager
async def running(context: BenchContext, path: Path) -> AsyncIterator[Control]:
    """The source of the files and the control plane, as they run in the agent; entered when the maps are written."""
    source = FolderSource(path, context.state, resource_kinds())
    for name in INPUTS:
        if name != "resources":
            context.state.writer(name).mark_initialized()
    control: Control = Control(context)  # type: ignore[arg-type]
    ready = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(control.run(ready.set)), group.create_task(source.run(lambda: None))]
        await ready.wait()
        yield control
        for task in tasks:
            task.cancel()


async def load(path: Path) -> float:
    """Seconds from files to the last write, empty maps before."""
    with surroundings() as context:
        begin = time.perf_counter()
        async with running(context, path) as control:
            seconds = time.perf_counter() - begin
            assert len(context.map("lb_services4").items()[0]) == 2 * SERVICES
            assert control.writes > SERVICES * (BACKENDS + 1)
        return seconds


def loads(form: str, rounds: int) -> list[float]:
    with folder(form) as path:
        return [asyncio.run(load(path)) for _ in range(rounds)]


async def update(path: Path, each: int) -> list[float]:
    """Milliseconds from a file's being in place to the last write, for each of some changes of one backend."""
    samples = []
    aside = path / ".changed"
    with surroundings() as context:
        async with running(context, path) as control:
            for at in range(1, CHANGES + 1):
                number = at * 997 % SERVICES
                first = number - number % each
                rows = itertools.chain(
                    objects(range(first, number)),
                    (service_of(number), slice_of(number, moved=at)),
                    objects(range(number + 1, first + each)),
                )
                aside.write_text(text_of(rows, "json"))
                await asyncio.sleep(0.1)  # what rested after the last change is cleared meanwhile
                before, begin = control.updates, time.perf_counter()
                os.replace(aside, path / f"{first:05}.json")
                while control.updates == before:  # noqa: ASYNC110 - to wait for an event would be measured, too
                    await asyncio.sleep(0)
                samples.append(1000 * (time.perf_counter() - begin))
    return samples


def updates(each: int) -> Sequence[float]:
    with folder("json", each) as path:
        return asyncio.run(update(path, each))


def figures() -> list[Figure]:
    return [
        Figure(
            name="lb.load.20k",
            unit="s",
            limit=3.0,
            what="20,000 services with 5 backends each, from 200 files of JSON to the last map write",
            measure=lambda rounds: loads("json", rounds),
        ),
        Figure(
            name="lb.load.20k.yaml",
            unit="s",
            limit=6.0,
            what="the same from files of YAML",
            measure=lambda rounds: loads("yaml", rounds),
        ),
        Figure(
            name="lb.update.20k",
            unit="ms",
            limit=20.0,
            what="one backend of 20,000 services changed, from its file among 20,000 to the last map write",
            measure=lambda _: updates(1),
        ),
        Figure(
            name="lb.update.20k.list",
            unit="ms",
            limit=100.0,
            what="the same in a file that is a list of 2,500 services",
            measure=lambda _: updates(2500),
        ),
    ]
