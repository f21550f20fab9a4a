"""Workloads on the real kernel: they reach each other, are added once, removed whole, and undone when they fail."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import attrs
import pytest

from axoneme.core.errors import AxonemeError, KernelError
from axoneme.core.net import messages
from axoneme.core.net import namespaces as ns
from axoneme.core.net.model import Veth
from axoneme.core.net.rtnl import Rtnl
from axoneme.core.testing.namespaces import Namespaces, ask, ping, within
from axoneme.core.workloads.endpoints import IPCACHE, Endpoint, EndpointState, NamedPort
from axoneme.core.workloads.network import NetworkError, WorkloadNetwork
from axoneme.core.workloads.records import Records
from axoneme.core.workloads.workloads import WorkloadError, Workloads

pytestmark = pytest.mark.kernel


def host_links(node: Any) -> list[str]:
    def read() -> list[str]:
        with Rtnl() as rtnl:
            return [messages.read_link(data).name for data in rtnl.dump(messages.dump_links())]

    return [name for name in within(node.netns, read) if name not in ("lo", "axohub", "axoend")]


def nothing_left(node: Any, workloads: Workloads) -> bool:
    records = list((node.options.folder / "endpoints").glob("*"))
    return not (host_links(node) or node.netns_names() or records or workloads.list())


async def in_thread(function: Any, *args: Any, **more: Any) -> Any:
    return await asyncio.to_thread(function, *args, **more)


async def test_two_workloads_reach_each_other_and_the_host(node: Any, namespaces: Namespaces) -> None:
    workloads = await node.start()
    one = await workloads.add("one", labels={"app": "one"})
    two = await workloads.add("two", labels={"app": "two"})
    node.deliver(one, two)
    tcp, udp = namespaces.serve_tcp(two.netns, 8080), namespaces.serve_udp(two.netns, 5353)
    for address, source in ((two.ipv4, one.ipv4), (two.ipv6, one.ipv6)):
        assert await in_thread(ping, one.netns, str(address))
        assert await in_thread(ping, node.netns, str(address)), "host to workload"
        assert await in_thread(ask, one.netns, str(address), 8080, b"tcp") == b"tcp"
        assert await in_thread(ask, one.netns, str(address), 5353, b"udp", udp=True) == b"udp"
        assert tcp.seen.pop() == udp.seen.pop() == str(source)
    assert await in_thread(ping, one.netns, "127.0.0.1"), "loopback is up"


async def test_what_an_endpoint_tells(node: Any) -> None:
    workloads = await node.start()
    endpoint = await workloads.add(
        "web", "shop", {"app": "web"}, named_ports={"http": NamedPort(8080, "tcp")}, created_by="test"
    )
    assert endpoint.state is EndpointState.READY
    assert (endpoint.id, endpoint.ifname, endpoint.uid) == (1, "axo1", "shop/web")
    assert endpoint.addresses == (ip_address("10.240.0.2"), ip_address("fd40::2"))
    assert (endpoint.identity, endpoint.labels[0]) == (256, "k8s:app=web")
    assert endpoint.named_ports == {"http": NamedPort(8080, "TCP")}
    assert endpoint.netns == f"/run/netns/{node.prefix}shop-web"
    assert node.links == [endpoint.ifindex]
    assert workloads.get("web", "shop") == endpoint
    assert workloads.list() == [endpoint]
    wish = workloads.workload("web", "shop")
    assert wish is not None
    assert (wish.managed, wish.created_by, wish.ipv4) == (True, "test", None)
    for address in endpoint.addresses:
        entry = workloads.ipcache.lookup(address)
        assert entry is not None
        assert entry.identity == endpoint.identity


async def test_the_link_is_down_while_it_is_announced(node: Any) -> None:
    """Programs are attached before the first packet can flow, and the tables tell already who it is."""
    workloads = await node.start()
    seen: list[tuple[bool, EndpointState]] = []

    async def look(ifindex: int) -> None:
        def read() -> bool:
            with Rtnl() as rtnl:
                return messages.read_link(rtnl.request([messages.get_link(ifindex=ifindex)])[0][0]).up

        (endpoint,) = workloads.list()
        assert endpoint.ifindex == ifindex
        seen.append((within(node.netns, read), endpoint.state))

    workloads._on_link = look
    await workloads.add("one")
    assert seen == [(False, EndpointState.CREATING)]


async def test_adding_again_changes_nothing(node: Any) -> None:
    workloads = await node.start()
    first = await workloads.add("one", labels={"app": "x"})
    revision = workloads._registry.endpoints.revision
    assert await workloads.add("one", labels={"app": "x"}) == first
    assert await workloads.add("one", labels={"app": "x"}, ipv4=first.ipv4, ipv6=str(first.ipv6)) == first
    assert workloads._registry.endpoints.revision == revision
    assert node.links == [first.ifindex]


async def test_adding_again_with_other_labels_gives_another_identity(node: Any) -> None:
    workloads = await node.start()
    first = await workloads.add("one", labels={"app": "x"})
    second = await workloads.add("one", labels={"app": "y"}, named_ports={"dns": NamedPort(53, "UDP")})
    assert second.identity != first.identity
    assert "k8s:app=y" in second.labels
    assert (second.id, second.ifindex, second.ipv4) == (first.id, first.ifindex, first.ipv4)
    assert workloads.identities.get(first.identity) is None
    entry = workloads.ipcache.lookup(ip_address(str(second.ipv4)))
    assert entry is not None
    assert entry.identity == second.identity
    await node.kill()
    (restored,) = (await node.start()).list()
    assert restored == second


async def test_adding_again_elsewhere_is_refused(node: Any) -> None:
    workloads = await node.start()
    await workloads.add("one")
    with pytest.raises(WorkloadError, match=r"with IPv4 address 10\.240\.0\.2, not 10\.240\.0\.9"):
        await workloads.add("one", ipv4="10.240.0.9")
    with pytest.raises(WorkloadError, match="with network namespace"):
        await workloads.add("one", netns="/run/netns/other")
    assert len(workloads.list()) == 1


async def test_namespace_labels_that_change(node: Any) -> None:
    labels = {"team": "blue"}
    workloads = await node.start(namespace_labels=lambda namespace: labels)
    first = await workloads.add("one", "shop")
    labels["team"] = "red"
    await workloads.refresh_labels("other")
    assert workloads.list() == [first]
    await workloads.refresh_labels("shop")
    (second,) = workloads.list()
    assert second.identity != first.identity
    assert "k8s:io.cilium.k8s.namespace.labels.team=red" in second.labels


async def test_an_existing_namespace_is_used_and_survives(node: Any, namespaces: Namespaces) -> None:
    workloads = await node.start()
    name = namespaces.make()
    one = await workloads.add("one", netns=name)
    two = await workloads.add("two")
    node.deliver(one, two)
    assert await in_thread(ping, two.netns, str(one.ipv6))
    with pytest.raises(WorkloadError, match="is that of workload default/one"):
        await workloads.add("three", netns=f"/run/netns/{name}")
    assert await workloads.remove("one")
    assert name in ns.names()
    again = await workloads.add("one", netns=name)
    node.deliver(again)
    assert await in_thread(ping, two.netns, str(again.ipv4))


async def test_namespaces_that_cannot_be_used(node: Any, namespaces: Namespaces) -> None:
    workloads = await node.start()
    with pytest.raises(KernelError, match="there is no network namespace"):
        await workloads.add("one", netns="no-such-one")
    with pytest.raises(NetworkError, match="host's own"):
        await workloads.add("one", netns=node.netns)
    with pytest.raises(KernelError, match="neither the path nor the name"):
        await workloads.add("one", netns="a/b")
    taken = namespaces.adopt(f"{node.prefix}default-two")
    ns.create(taken)
    with pytest.raises(WorkloadError, match="already"):
        await workloads.add("two")
    assert taken in ns.names()
    ns.delete(taken)
    assert nothing_left(node, workloads)


@pytest.mark.parametrize(
    "more",
    [
        {"name": "A"}, {"name": ""}, {"name": "a/b"}, {"name": "x", "namespace": "a.b"},
        {"name": "x", "labels": {"a b": "c"}}, {"name": "x", "ipv4": "fd40::2"}, {"name": "x", "ipv4": "10.9.0.1"},
        {"name": "x", "ipv6": "fd40::1"}, {"name": "x", "named_ports": {"80": NamedPort(80)}},
        {"name": "x", "named_ports": {"a": NamedPort(0)}}, {"name": "x", "named_ports": {"a": NamedPort(1, "ICMP")}},
        {"name": "x", "service_account": "/"},
    ],
)  # fmt: skip
async def test_wishes_that_make_no_sense(node: Any, more: dict[str, Any]) -> None:
    workloads = await node.start()
    with pytest.raises(AxonemeError):
        await workloads.add(**more)
    assert nothing_left(node, workloads)


async def test_chosen_addresses(node: Any) -> None:
    workloads = await node.start()
    one = await workloads.add("one", ipv4="10.240.0.9", ipv6="fd40::9")
    assert one.addresses == (ip_address("10.240.0.9"), ip_address("fd40::9"))
    with pytest.raises(AxonemeError, match="taken"):
        await workloads.add("two", ipv4="10.240.0.9")
    assert await workloads.remove("one")
    assert (await workloads.add("two", ipv4="10.240.0.9")).ipv4 == one.ipv4


async def test_removal_is_whole_and_idempotent(node: Any) -> None:
    workloads = await node.start()
    one = await workloads.add("one", labels={"app": "x"})
    assert await workloads.remove("one")
    assert not await workloads.remove("one")
    assert not await workloads.remove("never")
    assert nothing_left(node, workloads)
    assert node.unlinked == [one.ifindex]
    assert workloads.identities.get(one.identity) is None
    state = workloads._registry._state
    assert ip_network(f"{one.ipv4}/32") not in state.table(IPCACHE.name)
    second = await workloads.add("one", labels={"app": "x"})
    assert second.id != one.id
    assert second.ipv4 != one.ipv4


async def test_what_is_gone_already_can_be_removed(node: Any) -> None:
    workloads = await node.start()
    one = await workloads.add("one")
    ns.delete(one.netns)
    assert await workloads.remove("one")
    assert nothing_left(node, workloads)
    assert (await workloads.add("one", ipv4=one.ipv4)).state is EndpointState.READY


@pytest.mark.parametrize(
    ("owner", "method", "done"),  # whether it fails after it did its work, where it does not undo that itself
    [
        (Records, "write", False), (Records, "write", True), (WorkloadNetwork, "make_namespace", False),
        (WorkloadNetwork, "connect", False), (WorkloadNetwork, "activate", False), (WorkloadNetwork, "activate", True),
    ],
)  # fmt: skip
async def test_a_failure_leaves_nothing_and_keeps_its_error(
    node: Any, monkeypatch: pytest.MonkeyPatch, owner: type, method: str, done: bool
) -> None:
    workloads = await node.start()
    original = getattr(owner, method)

    def fail(*args: Any) -> None:
        if done:
            original(*args)
        raise KernelError("injected")

    monkeypatch.setattr(owner, method, fail)
    with pytest.raises(KernelError, match="injected"):
        await workloads.add("one")
    monkeypatch.undo()
    assert nothing_left(node, workloads)
    assert len(node.unlinked) == len(node.links)
    endpoint = await workloads.add("one")
    assert endpoint.state is EndpointState.READY


async def test_a_failed_attachment_is_undone(node: Any) -> None:
    workloads = await node.start()

    async def refuse(ifindex: int) -> None:
        raise KernelError("the program was rejected")

    workloads._on_link = refuse
    with pytest.raises(KernelError, match="rejected"):
        await workloads.add("one")
    assert nothing_left(node, workloads)


async def test_undoing_that_fails_does_not_hide_the_error(node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    workloads = await node.start()

    async def refuse(ifindex: int) -> None:
        monkeypatch.setattr(WorkloadNetwork, "delete_link", broken)
        raise KernelError("the program was rejected")

    def broken(self: WorkloadNetwork, ifindex: int) -> None:
        raise OSError("broken too")

    workloads._on_link = refuse
    with pytest.raises(KernelError, match="rejected"):
        await workloads.add("one")
    assert node.netns_names() == []


async def test_a_cancelled_addition_is_undone(node: Any) -> None:
    workloads = await node.start()
    reached = asyncio.Event()

    async def wait(ifindex: int) -> None:
        reached.set()
        await asyncio.Event().wait()

    workloads._on_link = wait
    adding = asyncio.ensure_future(workloads.add("one"))
    await reached.wait()
    adding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await adding
    assert nothing_left(node, workloads)


async def test_a_default_route_of_its_own_is_not_replaced(node: Any, namespaces: Namespaces) -> None:
    from axoneme.core.net.model import Route

    workloads = await node.start()
    name = namespaces.make()

    def give_route() -> None:
        with Rtnl() as rtnl:
            rtnl.request([messages.add(Route(1, ip_network("0.0.0.0/0")))])

    within(name, give_route)
    with pytest.raises(NetworkError, match="has a network of its own"):
        await workloads.add("one", netns=name)
    assert nothing_left(node, workloads)


async def test_a_strangers_interface_is_left_alone(node: Any, namespaces: Namespaces) -> None:
    workloads = await node.start()
    elsewhere = ns.open_namespace(namespaces.make())

    def make_theirs() -> None:
        veth = Veth(
            name="axo1", mac="02:00:00:00:00:01", peer_name="x", peer_mac="02:00:00:00:00:02",
            peer_netns=elsewhere.descriptor,
        )  # fmt: skip
        with Rtnl() as rtnl:
            rtnl.request([messages.create_veth(veth)])

    within(node.netns, make_theirs)
    endpoint = await workloads.add("one")
    assert (endpoint.id, endpoint.ifname) == (2, "axo2")
    assert await workloads.remove("one")
    assert host_links(node) == ["axo1"]
    elsewhere.close()


async def test_a_used_up_pool(node: Any) -> None:
    node.options = attrs.evolve(node.options, ipv4="10.240.0.0/30", ipv6=None)
    workloads = await node.start()
    one = await workloads.add("one")
    assert one.addresses == (ip_address("10.240.0.2"),)
    with pytest.raises(AxonemeError, match="no address is left"):
        await workloads.add("two")
    assert [endpoint.name for endpoint in workloads.list()] == ["one"]


async def test_one_family_only(node: Any) -> None:
    node.options = attrs.evolve(node.options, ipv4=None)
    workloads = await node.start()
    one, two = await workloads.add("one"), await workloads.add("two")
    node.deliver(one, two)
    assert one.ipv4 is None
    assert await in_thread(ping, one.netns, str(two.ipv6))


async def test_additions_at_once(node: Any) -> None:
    workloads = await node.start()
    async with asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(workloads.add(f"w{number % 3}"))
    assert [endpoint.name for endpoint in workloads.list()] == ["w0", "w1", "w2"]
    assert len(host_links(node)) == 3


async def test_the_cost_of_an_addition_does_not_grow(node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In requests, and in what is dumped; time is measured by the benchmark."""
    counts: list[int] = []
    original = Rtnl._send

    def count(self: Rtnl, requests: Any) -> list[int]:
        kept = list(requests)
        if not kept[0].what.startswith(
            "get"
        ):  # how often it asks whether a link runs yet is the kernel's affair
            counts.append(len(kept))
        assert not any(request.what.startswith("list") for request in kept)
        return original(self, kept)

    workloads = await node.start()
    monkeypatch.setattr(Rtnl, "_send", count)
    costs: set[tuple[int, ...]] = set()
    for number in range(50):
        counts.clear()
        await workloads.add(f"w{number}", labels={"app": str(number % 3)})
        costs.add(tuple(counts))
    assert len(costs) == 1


async def test_records_that_cannot_be_written_do_not_keep_a_workload(
    node: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from axoneme.core.state.persist import PersistError

    workloads = await node.start()
    await workloads.add("one")

    def full(self: Records, record: object) -> None:
        raise PersistError("no space left on device")

    monkeypatch.setattr(Records, "write", full)
    with pytest.raises(PersistError):
        await workloads.add("two")
    assert await workloads.remove("one")
    assert nothing_left(node, workloads)


async def test_a_removal_that_fails_can_be_repeated(node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    workloads = await node.start()
    await workloads.add("one")

    def refuse(self: WorkloadNetwork, ifindex: int) -> None:
        raise KernelError("not now")

    monkeypatch.setattr(WorkloadNetwork, "delete_link", refuse)
    with pytest.raises(KernelError, match="not now"):
        await workloads.remove("one")
    failed: Endpoint | None = workloads.get("one")
    assert failed is not None
    assert (failed.state, failed.reason) == (EndpointState.FAILED, "not now")
    monkeypatch.undo()
    assert await workloads.remove("one")
    assert nothing_left(node, workloads)


async def test_a_failed_one_is_added_anew(node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    workloads = await node.start()
    first = await workloads.add("one")
    workloads._registry.fail(workloads._registry.records[first.id], "broken")
    second = await workloads.add("one")
    assert second.state is EndpointState.READY
    assert second.id != first.id
    assert host_links(node) == [second.ifname]


def test_the_folder_of_a_stranger(tmp_path: Path) -> None:
    (tmp_path / "endpoints").mkdir()
    (tmp_path / "endpoints" / "x.json").write_text("{")
    assert Records(tmp_path / "endpoints").load() == []
    assert (tmp_path / "endpoints" / "x.json.bad").exists()
