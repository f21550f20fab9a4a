"""A killed agent's workloads: taken over untouched, repaired, rebuilt or removed, and nothing of strangers touched."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address, ip_network
from typing import Any

import attrs
import pytest

from axoneme.core.net import messages
from axoneme.core.net import namespaces as ns
from axoneme.core.net.model import InterfaceAddress, Route, Veth
from axoneme.core.net.rtnl import Rtnl
from axoneme.core.testing.namespaces import Namespaces, ask, ping, within
from axoneme.core.workloads.endpoints import TABLES, Endpoint, EndpointState
from axoneme.core.workloads.network import WorkloadNetwork
from axoneme.core.workloads.workloads import Workloads

pytestmark = pytest.mark.kernel


def requests(netns: str, *wanted: messages.Request) -> list[list[bytes]]:
    def run() -> list[list[bytes]]:
        with Rtnl() as rtnl:
            return rtnl.request(list(wanted))

    return within(netns, run)


def links(netns: str) -> dict[str, int]:
    def run() -> dict[str, int]:
        with Rtnl() as rtnl:
            found = map(messages.read_link, rtnl.dump(messages.dump_links()))
            return {link.name: link.ifindex for link in found}

    return within(netns, run)


class Changes:
    """Counts requests that change something in the kernel."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[str] = []
        original = Rtnl._send

        def watch(rtnl: Rtnl, some: Any) -> list[int]:
            kept = list(some)
            self.made += [request.what for request in kept if not request.what.startswith(("get", "list"))]
            return original(rtnl, kept)

        monkeypatch.setattr(Rtnl, "_send", watch)


async def test_what_is_there_is_not_touched(
    node: Any, namespaces: Namespaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await node.start()
    existing = namespaces.make()
    before = [
        await first.add("one", labels={"app": "x"}),
        await first.add("two", netns=existing, ipv4="10.240.0.9"),
    ]
    wishes = [first.workload(endpoint.name) for endpoint in before]
    await node.kill()
    node.links.clear()
    changes = Changes(monkeypatch)
    second = await node.start()
    workload_changes = [what for what in changes.made if not what.endswith("up")]
    assert workload_changes == []
    assert second.list() == before
    assert [second.workload(endpoint.name) for endpoint in before] == wishes
    assert node.links == [endpoint.ifindex for endpoint in before]
    third = await second.add("three")
    assert third.id == 3
    assert third.ipv4 not in (before[0].ipv4, before[1].ipv4)
    assert await second.remove("two")
    assert existing in ns.names()


async def test_traffic_flows_on_meanwhile(node: Any, namespaces: Namespaces) -> None:
    """Not one lost answer while agents are killed and started."""
    first = await node.start()
    one, two = await first.add("one"), await first.add("two")
    node.deliver(one, two)
    server = namespaces.serve_tcp(two.netns, 8080)
    stop = asyncio.Event()

    async def talk() -> int:
        number = 0
        while not stop.is_set():
            assert await asyncio.to_thread(ask, one.netns, str(two.addresses[number % 2]), 8080, timeout=1)
            number += 1
        return number

    async def answered(more: int) -> None:
        seen = len(server.seen)
        while len(server.seen) < seen + more:
            assert await asyncio.to_thread(ping, one.netns, str(two.ipv4))

    async with asyncio.TaskGroup() as group:
        talking = group.create_task(talk())
        for _ in range(3):
            await answered(5)
            await node.kill()
            await answered(5)
            assert (await node.start()).list() == [one, two]
        stop.set()
    assert talking.result() >= 30


async def test_a_repair_that_fails_leaves_the_workload_connected(node: Any) -> None:
    """Somebody gave its address to another device: that is shown, and its interface stays."""
    first = await node.start()
    one = await first.add("one")
    await node.kill()
    break_route(node, one)
    assert one.ipv4 is not None
    requests(node.netns, messages.add(Route(1, ip_network(f"{one.ipv4}/32"))))
    second = await node.start()
    (failed,) = second.list()
    assert (failed.state, failed.ifindex) == (EndpointState.FAILED, one.ifindex)
    assert "cannot add route" in failed.reason
    assert links(node.netns)["axo1"] == one.ifindex


async def test_the_tables_are_initialised_after_it(node: Any) -> None:
    workloads: Workloads = node.workloads()
    state = workloads._registry._state
    assert not any(state.table(spec.name).initialized for spec in TABLES)
    await workloads.restore()
    assert all(state.table(spec.name).initialized for spec in TABLES)


def break_route(node: Any, endpoint: Endpoint) -> None:
    hub = links(node.netns)["axohub"]
    assert endpoint.ipv4 is not None
    requests(node.netns, messages.delete(Route(hub, ip_network(f"{endpoint.ipv4}/32"))))


def break_address(node: Any, endpoint: Endpoint) -> None:
    assert endpoint.ipv6 is not None
    inside = links(endpoint.netns)["eth0"]
    requests(endpoint.netns, messages.delete(InterfaceAddress(inside, endpoint.ipv6, 128)))


def break_default_route(node: Any, endpoint: Endpoint) -> None:
    inside = links(endpoint.netns)["eth0"]
    requests(
        endpoint.netns, messages.delete(Route(inside, ip_network("0.0.0.0/0"), ip_address("169.254.1.1")))
    )


def break_link(node: Any, endpoint: Endpoint) -> None:
    requests(node.netns, messages.delete_link(endpoint.ifindex))


def break_inside(node: Any, endpoint: Endpoint) -> None:
    """Somebody else's interface has the index and name of ours: ours went with its other half."""
    requests(endpoint.netns, messages.delete_link(links(endpoint.netns)["eth0"]))


@pytest.mark.parametrize(
    "damage",
    [break_route, break_address, break_default_route, break_link, break_inside],
    ids=lambda f: f.__name__,
)
async def test_damage_is_repaired(node: Any, damage: Any) -> None:
    first = await node.start()
    one, two = await first.add("one"), await first.add("two")
    await node.kill()
    damage(node, one)
    second = await node.start()
    repaired, untouched = second.list()
    assert untouched == two
    assert repaired.state is EndpointState.READY
    assert (repaired.id, repaired.addresses, repaired.identity) == (one.id, one.addresses, one.identity)
    node.deliver(repaired, untouched)
    for address in one.addresses:
        assert await asyncio.to_thread(ping, two.netns, str(address))
    assert await asyncio.to_thread(ping, one.netns, str(two.ipv4))


@pytest.mark.parametrize("state", [EndpointState.CREATING, EndpointState.REMOVING])
async def test_what_was_cut_short_is_removed(node: Any, namespaces: Namespaces, state: EndpointState) -> None:
    first = await node.start()
    existing = namespaces.make()
    await first.add("one")
    await first.add("two", netns=existing)
    await first.add("three")
    for number in (1, 2):
        first._registry.save(attrs.evolve(first._registry.records[number], state=state))
    await node.kill()
    second = await node.start()
    assert [endpoint.name for endpoint in second.list()] == ["three"]
    assert set(links(node.netns)) == {"lo", "axohub", "axoend", "axo3"}
    assert node.netns_names() == [f"{node.prefix}default-three"]
    assert existing in ns.names()
    assert set(links(existing)) == {"lo"}
    assert (await second.add("one")).state is EndpointState.READY


@pytest.mark.parametrize("method", ["make_namespace", "connect", "activate"])
@pytest.mark.parametrize("done", [False, True])
async def test_killed_in_the_middle_of_an_addition(
    node: Any, monkeypatch: pytest.MonkeyPatch, method: str, done: bool
) -> None:
    """The process is gone before it could undo anything."""
    from axoneme.core.workloads.undo import Undo

    first = await node.start()
    original = getattr(WorkloadNetwork, method)

    def die(*args: Any) -> None:
        if done:
            original(*args)
        raise SystemExit

    async def nothing(self: Undo) -> None:
        pass

    monkeypatch.setattr(Undo, "run", nothing)
    monkeypatch.setattr(WorkloadNetwork, method, die)
    with pytest.raises(SystemExit):
        await first.add("one")
    monkeypatch.undo()
    await node.kill()
    second = await node.start()
    assert second.list() == []
    assert set(links(node.netns)) == {"lo", "axohub", "axoend"}
    assert node.netns_names() == []
    assert list((node.options.folder / "endpoints").iterdir()) == []


async def test_a_vanished_namespace(node: Any, caplog: pytest.LogCaptureFixture) -> None:
    first = await node.start()
    one, two = await first.add("one"), await first.add("two")
    await node.kill()
    ns.delete(one.netns)
    second = await node.start()
    assert second.list() == [two]
    assert "workload removed" in caplog.text
    assert (await second.add("one")).addresses != one.addresses


async def test_another_namespace_in_its_place(node: Any) -> None:
    """A new one of the same name is not ours, and is not removed with the record."""
    first = await node.start()
    one = await first.add("one")
    await node.kill()
    ns.delete(one.netns)
    ns.create(one.netns.rpartition("/")[2])
    second = await node.start()
    assert second.list() == []
    assert ns.identity_of(one.netns) is not None
    assert set(links(node.netns)) == {"lo", "axohub", "axoend"}


async def test_leftovers_and_strangers(node: Any, namespaces: Namespaces) -> None:
    first = await node.start()
    await first.add("one")
    await node.kill()
    (node.options.folder / "endpoints" / "1.json").unlink()
    with ns.opened(namespaces.make()) as elsewhere:
        veth = Veth(
            name="axo5", mac="02:00:00:00:00:01", peer_name="x", peer_mac="02:00:00:00:00:02",
            peer_netns=elsewhere.descriptor,
        )  # fmt: skip
        requests(node.netns, messages.create_veth(veth))
        requests(node.netns, messages.set_alias(links(node.netns)["axo5"], "axoneme:another:5"))
        second = await node.start()
        assert second.list() == []
        assert set(links(node.netns)) == {"lo", "axohub", "axoend", "axo5"}


async def test_somebody_else_has_its_name_now(node: Any, namespaces: Namespaces) -> None:
    first = await node.start()
    one = await first.add("one")
    await node.kill()
    requests(node.netns, messages.delete_link(one.ifindex))
    with ns.opened(namespaces.make()) as elsewhere:
        veth = Veth(
            name="axo1", mac="02:00:00:00:00:01", peer_name="x", peer_mac="02:00:00:00:00:02",
            peer_netns=elsewhere.descriptor,
        )  # fmt: skip
        requests(node.netns, messages.create_veth(veth))
        second = await node.start()
        (failed,) = second.list()
        assert failed.state is EndpointState.FAILED
        assert "somebody else's" in failed.reason
        again = await second.add("one")
        assert (again.state, again.ifname) == (EndpointState.READY, "axo2")
        assert "axo1" in links(node.netns)


async def test_a_record_that_cannot_be_read(node: Any) -> None:
    first = await node.start()
    await first.add("one")
    await first.add("two")
    await node.kill()
    (node.options.folder / "endpoints" / "1.json").write_text("{")
    second = await node.start()
    assert [endpoint.name for endpoint in second.list()] == ["two"]
    assert "axo1" not in links(node.netns)


async def test_stale_routes_of_the_hub_are_removed(node: Any) -> None:
    first = await node.start()
    one = await first.add("one")
    hub = links(node.netns)["axohub"]
    requests(node.netns, messages.add(Route(hub, ip_network("10.240.0.77/32"))))
    await node.kill()
    assert (await node.start()).list() == [one]

    def routes() -> set[str]:
        with Rtnl() as rtnl:
            found = [messages.read_route(data) for v in (4, 6) for data in rtnl.dump(messages.dump_routes(v))]
            return {str(route.destination) for route in found if route is not None and route.ifindex == hub}

    assert within(node.netns, routes) >= {f"{one.ipv4}/32", f"{one.ipv6}/128", "fd40::1/128"}
    assert "10.240.0.77/32" not in within(node.netns, routes)


async def test_an_attachment_that_fails_is_a_failed_endpoint(node: Any) -> None:
    from axoneme.core.errors import KernelError

    first = await node.start()
    await first.add("one")
    await node.kill()
    second = node.workloads()

    async def refuse(ifindex: int) -> None:
        raise KernelError("rejected")

    second._on_link = refuse
    await second.restore()
    (failed,) = second.list()
    assert (failed.state, failed.reason) == (EndpointState.FAILED, "rejected")
