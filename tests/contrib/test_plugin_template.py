"""The template for third-party plugins: its stage on the real kernel, its Python, and the tests that it brings along.

That it installs and runs beside an installed agent is in `test_plugin_template_installed.py`.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from axoneme.core.datapath.maps import Map
from axoneme.core.errors import AxonemeError
from axoneme.core.manager import PluginManager
from axoneme.core.records import Level, Phase, Runs, Stage
from axoneme.core.state.table import State
from axoneme.core.testing.datapath import Action, DatapathBench
from axoneme.core.testing.fake_kernel import FakeKernel
from axoneme.core.testing.packets import (
    ACK,
    SYN,
    TCP,
    UDP,
    Ethernet,
    ICMPv6,
    IPv4,
    IPv6,
    Layer,
    build,
    echo,
)
from axoneme.core.workloads.endpoints import ENDPOINTS, Endpoint

TEMPLATE = Path(__file__).parents[2] / "contrib" / "plugin-template"
#: Where a first packet's path may be cut into tail calls.
EVERYWHERE = ("track", "resolve", "decide", "authenticate", "redirect", "encrypt")


@pytest.fixture(scope="module")
def plugin() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TEMPLATE / "src"))
        import axoneme_packet_counter

        yield axoneme_packet_counter
        for name in [name for name in sys.modules if name.startswith("axoneme_packet_counter")]:
            del sys.modules[name]


def context(plugin: ModuleType, table: Map | None = None, **settings: Any) -> Any:
    """A context, of which hooks for maps and stages use only the configuration."""
    schema = plugin.axoneme_config().schema
    state = State([ENDPOINTS])
    return SimpleNamespace(
        config=schema(**settings), state=state, map=lambda name: {"packet_counts": table}[name]
    )


Bench = Callable[..., DatapathBench]


@pytest.fixture
def bench(plugin: ModuleType, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Makes a bench with the plugin's stage and two workloads of each family."""
    opened: list[DatapathBench] = []

    def make(workloads: int = 16, more: Iterable[tuple[str, Stage]] = (), **options: Any) -> DatapathBench:
        given = context(plugin, workloads=workloads)
        stages = [("packet-counter", stage) for stage in plugin.axoneme_stages(given)]
        made = DatapathBench([*stages, *more], plugin.axoneme_maps(given), **options).__enter__()
        opened.append(made)
        made.workload(1, "client", identity=256, ipv4="10.0.0.1", ipv6="fd00::1")
        made.workload(2, "server", identity=257, ipv4="10.0.0.2", ipv6="fd00::2")
        return made

    yield make
    for made in opened:
        made.__exit__(None, None, None)


def counts(bench: DatapathBench, workload: int) -> dict[str, int]:
    """What is not zero of a workload's counts; empty for one that was never entered."""
    found = bench.map("packet_counts").lookup(workload)
    names = () if found is None else found.dtype.names
    return {name: total for name in names if (total := int(found[name].sum()))}


def out(packets: int, size: int) -> dict[str, int]:
    return {"out_packets": packets, "out_bytes": size}


def into(packets: int, size: int) -> dict[str, int]:
    return {"in_packets": packets, "in_bytes": size}


def exchange(family: int, sport: int = 40000) -> tuple[bytes, bytes]:
    """A connection's first packet and its answer, of different sizes."""
    forth: Layer = IPv4("10.0.0.1", "10.0.0.2") if family == 4 else IPv6("fd00::1", "fd00::2")
    back: Layer = IPv4("10.0.0.2", "10.0.0.1") if family == 4 else IPv6("fd00::2", "fd00::1")
    return (
        build(Ethernet(), forth, TCP(sport, 80, flags=SYN)),
        build(Ethernet(), back, TCP(80, sport, flags=SYN | ACK), bytes(100)),
    )


@pytest.mark.kernel
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("cuts", [(), EVERYWHERE], ids=["single", "tailcalls"])
def test_both_ends_of_a_connection_on_the_node_are_counted(bench: Bench, family: int, cuts: Any) -> None:
    bench_ = bench(cuts=cuts)
    first, answer = exchange(family)
    assert bench_.run("from_workload", first, sender="client").action == Action.REDIRECT
    assert (counts(bench_, 1), counts(bench_, 2)) == (out(1, len(first)), into(1, len(first)))
    assert bench_.run("from_workload", answer, sender="server").action == Action.REDIRECT
    assert counts(bench_, 1) == out(1, len(first)) | into(1, len(answer))
    assert counts(bench_, 2) == out(1, len(answer)) | into(1, len(first))


@pytest.mark.kernel
@pytest.mark.parametrize("family", [4, 6])
def test_every_packet_of_a_connection_is_counted_once(bench: Bench, family: int) -> None:
    bench_ = bench()
    first, _ = exchange(family)
    bench_.run("from_workload", first, sender="client", repeat=1)
    bench_.run("from_workload", first, sender="client", repeat=1)
    bench_.revision += 1  # decided anew: the way of first packets, with an entry that is there already
    bench_.run("from_workload", first, sender="client", repeat=1)
    assert (counts(bench_, 1), counts(bench_, 2)) == (out(3, 3 * len(first)), into(3, 3 * len(first)))


@pytest.mark.kernel
@pytest.mark.parametrize("point", ["to_workload", "from_network"])
@pytest.mark.parametrize("address", ["8.8.8.8", "2001:db8::1"])
def test_what_comes_from_elsewhere_is_only_received(bench: Bench, point: str, address: str) -> None:
    bench_ = bench()
    outer: Layer = IPv6(address, "fd00::2") if ":" in address else IPv4(address, "10.0.0.2")
    frame = build(Ethernet(), outer, UDP(5353, 53), b"question")
    for _ in range(2):
        bench_.run(point, frame)
    assert (counts(bench_, 1), counts(bench_, 2)) == ({}, into(2, 2 * len(frame)))


@pytest.mark.kernel
@pytest.mark.parametrize("address", ["8.8.8.8", "2001:db8::1"])
def test_what_leaves_the_node_is_only_sent(bench: Bench, address: str) -> None:
    bench_ = bench()
    outer: Layer = IPv6("fd00::1", address) if ":" in address else IPv4("10.0.0.1", address)
    frame = build(Ethernet(), outer, UDP(5353, 53), b"question")
    for _ in range(2):
        assert bench_.run("from_workload", frame, sender="client").action == Action.PASS
    assert counts(bench_, 1) == out(2, 2 * len(frame))
    assert len(bench_.map("packet_counts").items()[0]) == 1


@pytest.mark.kernel
def test_pings_count(bench: Bench) -> None:
    bench_ = bench()
    frame = build(Ethernet(), IPv6("fd00::1", "fd00::2"), ICMPv6(rest=echo(7, 1)))
    bench_.run("from_workload", frame, sender="client")
    assert (counts(bench_, 1), counts(bench_, 2)) == (out(1, len(frame)), into(1, len(frame)))


@pytest.mark.kernel
def test_dropped_packets_do_not_count(bench: Bench) -> None:
    text = "STAGE(refuse)\n{\n\treturn DROP(REASON_POLICY_DENIED);\n}\n"
    refuse = Stage(name="refuse", source=text, attach=("from_workload",), phase=Phase.DECIDE, runs=Runs.FIRST)
    bench_ = bench(more=[("wall", refuse)])
    forged = build(Ethernet(), IPv4("10.0.0.2", "10.0.0.1"), TCP(80, 40000, flags=ACK))
    assert bench_.run("from_workload", exchange(4)[0], sender="client").reason == "POLICY_DENIED"
    assert bench_.run("from_workload", forged, sender="client").reason == "INVALID_SOURCE_IP"
    assert (counts(bench_, 1), counts(bench_, 2)) == ({}, {})


@pytest.mark.kernel
def test_a_full_map_stops_counting_and_nothing_else(bench: Bench, plugin: ModuleType) -> None:
    bench_ = bench(workloads=1)
    first, _ = exchange(4)
    assert bench_.run("from_workload", first, sender="client").action == Action.REDIRECT
    assert (counts(bench_, 1), counts(bench_, 2)) == (out(1, len(first)), {})
    (check,) = plugin.axoneme_health(context(plugin, bench_.map("packet_counts"), workloads=1))
    assert check.check().level is Level.DEGRADED
    (check,) = plugin.axoneme_health(context(plugin, bench_.map("packet_counts"), workloads=2))
    assert check.check().level is Level.OK


def test_without_the_plugin_not_one_instruction_is_left(plugin: ModuleType) -> None:
    decide = Stage(
        name="allow", source="STAGE(allow)\n{\n\treturn NEXT;\n}\n", attach=("from_workload", "to_workload"),
        phase=Phase.DECIDE,
    )  # fmt: skip
    given = context(plugin)
    own = [("packet-counter", stage) for stage in plugin.axoneme_stages(given)]
    before = DatapathBench([("other", decide)])
    with_it = DatapathBench([("other", decide), *own], plugin.axoneme_maps(given))
    for point in ("from_workload", "to_workload", "from_network"):
        assert with_it.compose(point).digest != before.compose(point).digest
        # Its map may even still be declared: what no stage mentions is not in the text.
        after = DatapathBench([("other", decide)], plugin.axoneme_maps(given)).compose(point)
        assert after.text == before.compose(point).text
        assert after.digest == before.compose(point).digest


# Its Python, without a kernel.


@pytest.fixture
def table(plugin: ModuleType) -> Iterator[Map]:
    (spec,) = plugin.axoneme_maps(context(plugin))
    with Map.create(FakeKernel(), spec) as made:
        yield made


def row(received: int, sent: int) -> dict[str, int]:
    return into(received, 100 * received) | out(sent, 100 * sent)


def add(given: Any, *numbers: int) -> None:
    writer = given.state.writer("endpoints", Endpoint)
    writer.upsert(*(Endpoint(id=number, name=f"w{number}", namespace="n") for number in numbers))
    writer.mark_initialized()


def ask(plugin: ModuleType, given: Any, **arguments: Any) -> Any:
    (method,) = plugin.axoneme_api(given)
    return method.call(**arguments)


def test_the_busiest_come_first(plugin: ModuleType, table: Map) -> None:
    given = context(plugin, table, top=2)
    add(given, 1, 2, 3)
    cpus = FakeKernel().possible_cpus
    for number, received in ((1, 1), (2, 3), (3, 2), (9, 99)):  # 9 is of a workload that is gone
        table.update(number, row(received, 0))
    assert [one["workload"] for one in ask(plugin, given)] == ["n/w2", "n/w3"]
    assert [one["workload"] for one in ask(plugin, given, count=9)] == ["n/w2", "n/w3", "n/w1"]
    assert ask(plugin, given, count=1)[0]["in_packets"] == 3 * cpus  # summed over the CPUs
    (metric,) = plugin.axoneme_metrics(given)
    assert metric.read()["n/w3", "in"] == 2 * cpus


@pytest.mark.parametrize("count", [0, -1, True, "2", 1.5])
def test_a_count_that_is_none_is_refused(plugin: ModuleType, table: Map, count: Any) -> None:
    with pytest.raises(AxonemeError, match="positive"):
        ask(plugin, context(plugin, table), count=count)


async def test_counts_of_workloads_that_are_gone_are_forgotten(plugin: ModuleType, table: Map) -> None:
    given = context(plugin, table)
    for number in (1, 2, 3):
        table.update(number, row(1, 1))
    (service,) = plugin.axoneme_services(given)
    add(given, 1, 2)
    ready = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(service.run(ready.set))
        await ready.wait()
        assert table.items()[0].tolist() == [1, 2]
        ready.clear()
        given.state.writer("endpoints", Endpoint).delete(2)
        await ready.wait()
        assert table.items()[0].tolist() == [1]
        task.cancel()


async def test_the_log_is_a_service_only_when_it_is_wanted(
    plugin: ModuleType, table: Map, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = context(plugin, table, log_interval=0.001)
    add(given, 1)
    table.update(1, row(1, 0))
    service = next(one for one in plugin.axoneme_services(given) if one.name == "log")
    written = asyncio.Event()
    caplog.set_level("INFO")
    # For this test only: the handler is that of all tests of the process.
    monkeypatch.setattr(
        caplog.handler, "emit", lambda record: written.set() if record.getMessage() == "traffic" else None
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(service.run(lambda: None))
        async with asyncio.timeout(5):
            await written.wait()
        task.cancel()


def test_its_hooks_are_accepted(plugin: ModuleType) -> None:
    manager = PluginManager(["packet-counter"], found={}, extra=[plugin])
    assert manager.enabled == ["packet-counter"], manager.failed
    given = context(plugin)
    hooks = (manager.maps, manager.stages, manager.services, manager.api, manager.health, manager.metrics)
    provided = [len(hook(lambda name: given)) for hook in hooks]
    assert (provided, len(manager.commands()), manager.failed) == ([1, 1, 1, 1, 1, 1], 1, {})


@pytest.mark.slow
@pytest.mark.kernel
def test_the_tests_that_it_brings_pass() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."]
    environment = os.environ | {"PYTHONPATH": str(TEMPLATE / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, cwd=TEMPLATE, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_stays_small() -> None:
    """It is read by people who want to write their own."""
    lines = [line for file in TEMPLATE.glob("src/**/*.py") for line in file.read_text().splitlines()]
    assert sum(bool(line.strip()) for line in lines) < 200
