"""A thousand changes of services, each of which a user makes by file or by command, under traffic of all kinds."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from ipaddress import ip_address
from typing import Any

import pytest
from attrs import frozen
from lb_agents import World, world_of
from lb_scenes import service, slices

from axoneme.core.datapath.maps import Map
from axoneme.core.datapath.syscall import SyscallKernel
from axoneme.core.testing.traffic import Flow, Kind, Traffic, mesh
from axoneme.plugins.lb.config import LbConfig
from axoneme.plugins.lb.maps import Scope, specs
from axoneme.plugins.lb.model import Protocol
from axoneme.plugins.lb.rows import row_key

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

UPDATES = 1000
#: What the issue of this test asks for, in seconds.
TIME = 30.0
PORT = 80
#: Services: one in a file and one by command.
WEB = ("10.96.0.10", "fd00:96::a")
EXTRA = ("10.96.0.11", "fd00:96::b")
#: Backends of one update after another: some are added, some removed, some replaced.
SETS = (("web-0", "web-1"), ("web-1", "web-2"), ("web-3",), ("web-2", "web-0", "web-1"), ("web-0", "web-2"))


class Rows:
    """The rows of services in the kernel, read there."""

    def __init__(self, world: World) -> None:
        kernel, folder = SyscallKernel(), world.node.bpffs / "maps"
        self._stack = ExitStack()
        self._maps = {
            spec.name: self._stack.enter_context(
                Map(kernel, spec, kernel.open_pin(folder / f"{spec.name}@{spec.digest}"))
            )
            for spec in specs(LbConfig().sizes)
            if spec.name in ("lb_services4", "lb_services6")
        }

    def of(self, vips: tuple[str, str], protocol: Protocol = Protocol.TCP) -> tuple[Any, Any]:
        """Of IPv4 and IPv6, as tuples; None where there is none."""
        four, six = (self._one(vip, protocol) for vip in vips)
        return four, six

    def _one(self, vip: str, protocol: Protocol) -> tuple[Any, ...] | None:
        address = ip_address(vip)
        row = self._maps[f"lb_services{address.version}"].lookup(
            row_key(address, PORT, protocol, Scope.INTERNAL)
        )
        return None if row is None else tuple(row.tolist())

    def affinities(self, vips: tuple[str, str]) -> tuple[int, int]:
        four, six = (row[3] if row else -1 for row in self.of(vips))
        return four, six

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def world() -> Iterator[World]:
    with world_of() as made:
        made.workload("client")
        for number in range(4):
            made.workload(f"web-{number}", app="web")
        yield made


@pytest.fixture
def rows(world: World) -> Iterator[Rows]:
    made = Rows(world)
    yield made
    made.close()


def text_of(world: World, name: str, vips: tuple[str, str], names: tuple[str, ...], more: str = "") -> str:
    """A service with both protocols and both families, and these backends."""
    ports = "ports: [{name: t, port: 80}, {name: u, port: 80, protocol: UDP}]"
    text = service(name, f'clusterIPs: ["{vips[0]}", "{vips[1]}"], {ports}{more}')
    for family, (protocol, port) in itertools.product((4, 6), (("TCP", "t"), ("UDP", "u"))):
        addresses = [world.workloads[one].addresses[family == 6] for one in names]
        one = slices(name, addresses, PORT, protocol=protocol, port_name=port)
        text += one.replace(f"{name}-{family}", f"{name}-{family}-{port}")
    return text


def kept_for(seconds: int) -> str:
    return f", sessionAffinity: ClientIP, sessionAffinityConfig: {{clientIP: {{timeoutSeconds: {seconds}}}}}"


@frozen
class Passing:
    """A service that comes, changes and goes.

    :param by_command: rather than by file.
    """

    name: str
    vips: tuple[str, str]
    by_command: bool

    @classmethod
    def of(cls, number: int) -> Passing:
        return cls(f"passing-{number}", (f"10.96.1.{number}", f"fd00:96::1:{number:x}"), number % 8 == 0)


class Updates:
    """Makes one after the other, and waits until the kernel has it. A file that is gone is missed for a while before what it
    brought goes, too: that is awaited at the end.
    """

    def __init__(self, world: World, rows: Rows, call: Callable[..., Any]) -> None:
        self._world, self._rows, self._call = world, rows, call
        self._sets = itertools.cycle(SETS)
        self._gone: list[Passing] = []
        self.applied = 0

    def run(self) -> None:
        for number in range(0, UPDATES // 5, 2):
            one, other = Passing.of(number), Passing.of(number + 1)
            cycle: tuple[Callable[[], None], ...] = (
                self.local, self.file, partial(self.comes, one), partial(self.comes, other), partial(self.comes, one),
                partial(self.comes, other), self.local, self.file, partial(self.goes, one), partial(self.goes, other),
            )  # fmt: skip
            for update in cycle:
                update()
                self.applied += 1
        for passing in self._gone:
            self._until(lambda passing=passing: self._rows.of(passing.vips) == (None, None))

    def local(self) -> None:
        self._add("extra", EXTRA)

    def _add(self, name: str, vips: tuple[str, str]) -> None:
        """By command. The time for which clients keep their backend tells each update from the one before."""
        number = self.applied + 1
        backends = [
            {"address": address, "port": PORT}
            for one in next(self._sets)
            for address in self._world.workloads[one].addresses
        ]
        self._call("service.add", name=name, vips=vips, port=PORT, backends=backends, affinity=number)
        self._until(lambda: self._rows.affinities(vips) == (number, number))

    def file(self) -> None:
        before = [*self._rows.of(WEB), *self._rows.of(WEB, Protocol.UDP)]
        self._world.resource("web.yaml", text_of(self._world, "web", WEB, next(self._sets)))

        def changed() -> bool:
            now = [*self._rows.of(WEB), *self._rows.of(WEB, Protocol.UDP)]
            return not set(before) & set(now)

        self._until(changed)

    def comes(self, passing: Passing) -> None:
        """For the first time, or with other backends than before."""
        if passing.by_command:
            self._add(passing.name, passing.vips)
            return
        number = self.applied + 1
        text = text_of(self._world, passing.name, passing.vips, next(self._sets), kept_for(number))
        self._world.resource(f"{passing.name}.yaml", text)
        self._until(lambda: self._rows.affinities(passing.vips) == (number, number))

    def goes(self, passing: Passing) -> None:
        if passing.by_command:
            self._call("service.delete", name=passing.name)
        else:
            (self._world.node.resources / f"{passing.name}.yaml").unlink()
        self._gone.append(passing)

    def _until(self, reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIME
        while not reached():
            assert time.monotonic() < deadline, f"update {self.applied + 1} does not arrive"
            time.sleep(0.0005)


def requests(name: str, netns: str, addresses: tuple[str, ...]) -> list[Flow]:
    return [
        Flow(name=f"{name}-{address}", kind=Kind.REQUEST, netns=netns, address=address, port=PORT)
        for address in addresses
    ]


def test_a_thousand_updates_in_half_a_minute(world: World, rows: Rows) -> None:
    """Translated at packets: new connections, connections that live all the time, datagrams. At sockets, from a workload and
    from the node: new connections. The backends answer all the time; `all` keeps connections through sockets from being closed.
    """
    every = tuple(f"web-{number}" for number in range(4))
    addresses = [a for name in every for a in world.workloads[name].addresses]
    vips = ["10.96.0.13", "fd00:96::d"]
    backends = [{"address": address, "port": PORT} for address in addresses]
    world.node.call("service.add", name="all", vips=vips, port=PORT, backends=backends)
    world.node.call("service.add", name="extra", vips=EXTRA, port=PORT, backends=backends)
    world.resource("web.yaml", text_of(world, "web", WEB, every))
    world.node.until(lambda: None not in (*rows.of(EXTRA), *rows.of(WEB)), "the services are there")
    client, node = world.workloads["client"].netns, world.node.netns
    servers = [(world.workloads[name].netns, PORT) for name in every]
    at_packets = [*mesh(client, WEB, PORT), *requests("extra", client, EXTRA)]
    at_sockets = [*requests("client", client, (*WEB, *EXTRA)), *requests("node", node, (*WEB, *EXTRA))]
    with (
        Traffic(servers=servers, flows=at_packets) as packets,
        Traffic(servers=[], flows=at_sockets, cgroup=world.node.cgroup) as sockets,
        world.node.client() as api,
    ):
        updates = Updates(world, rows, api.call)
        begin = time.monotonic()
        updates.run()
        spent = time.monotonic() - begin
        packets.more(20)
        sockets.more(20)
    print(f"{updates.applied} updates in {spent:.1f} s")
    print(packets.check(), sockets.check(), sep="\n")
    assert updates.applied == UPDATES
    assert spent <= TIME
    assert world.node.problems() == []
