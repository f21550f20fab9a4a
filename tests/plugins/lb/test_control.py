"""From resources and workloads to maps and tables, in a whole agent on a kernel in memory."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from lb_scenes import behind, kit, names, row_of, service, slices, until, values

from axoneme.core.api.wire import NotFoundError, RequestError
from axoneme.core.records import Level
from axoneme.core.testing.agent import FakePlatform
from axoneme.core.workloads.endpoints import NamedPort
from axoneme.plugins.lb import control, show
from axoneme.plugins.lb.maps import Scope, ServiceFlag
from axoneme.plugins.lb.tables import BackendsRow

WEB = service("web", "clusterIP: 10.96.0.10, ports: [{port: 80}]")


async def test_a_slice_s_backends_come_change_and_go() -> None:
    async with kit() as made:
        path = made.resource("web.yaml", WEB + slices("web", ["10.0.0.1", "10.0.0.2"]))
        await until(lambda: behind(made, "10.96.0.10", 80) == ["10.0.0.1:8080", "10.0.0.2:8080"])
        leaving = "10.0.0.1 conditions: {ready: false, serving: true, terminating: true}"
        made.resource("web.yaml", WEB + slices("web", [leaving, "10.0.0.2"]))
        await until(lambda: behind(made, "10.96.0.10", 80) == ["10.0.0.2:8080"])
        table = made.agent.state.table("backends", BackendsRow)
        await until(lambda: [one.state for one in table.all()[0].backends] == ["terminating", "active"])
        made.resource("web.yaml", WEB + slices("web", [leaving]))
        await until(lambda: behind(made, "10.96.0.10", 80) == ["10.0.0.1:8080"])  # nobody else is left
        path.unlink()
        await until(lambda: not names(made))
        assert len(made.agent.datapath.map("lb_services4").items()[0]) == 0
        await until(lambda: not made.agent.datapath.map("lb_backends4").items()[1]["flags"].any())


async def test_a_selector_finds_workloads_by_their_labels_and_named_ports() -> None:
    text = service(
        "web",
        'clusterIPs: [10.96.0.10, "fd00:96::a"], selector: {app: web}, ports: [{port: 80, targetPort: http}]',
    )
    async with kit() as made:
        made.resource("web.yaml", text)
        await until(lambda: row_of(made, "10.96.0.10", 80) is not None)
        assert behind(made, "10.96.0.10", 80) == []
        ports = {"http": NamedPort(8000)}
        web = await made.agent.workloads.add("web", labels={"app": "web"}, named_ports=ports)
        await made.agent.workloads.add("other", labels={"app": "other"}, named_ports=ports)
        await made.agent.workloads.add("portless", labels={"app": "web"})
        await until(lambda: behind(made, "10.96.0.10", 80) == [f"{web.ipv4}:8000"])
        assert behind(made, "fd00:96::a", 80) == [f"{web.ipv6}:8000"]
        (row,) = made.agent.state.table("backends", BackendsRow).all()
        assert {one.target for one in row.backends} == {"default/web"}
        await made.agent.workloads.remove("web")
        await until(lambda: behind(made, "10.96.0.10", 80) == [])


async def test_a_restart_writes_nothing_and_keeps_numbers(tmp_path: Path) -> None:
    platform = FakePlatform()
    async with kit(tmp_path, platform) as made:
        made.resource("a.yaml", service("a", "clusterIP: 10.96.0.1, ports: [{port: 80}]"))
        await until(lambda: "a" in names(made))
        made.resource("web.yaml", WEB + slices("web", ["10.0.0.1", "10.0.0.2", "10.0.0.3"]))
        await until(lambda: len(behind(made, "10.96.0.10", 80)) == 3)
        (tmp_path / "resources" / "a.yaml").unlink()
        await until(lambda: "a" not in names(made))
        before = {n: made.agent.datapath.map(n).items()[1].tobytes() for n in ("lb_services4", "lb_slots")}
    async with kit(tmp_path, platform) as made:
        await until(lambda: "web" in names(made))
        assert before == {n: made.agent.datapath.map(n).items()[1].tobytes() for n in before}
        assert control.of(made.agent.context("lb")).writes == 0


async def test_an_address_from_a_pool_stays_over_restarts(tmp_path: Path) -> None:
    platform = FakePlatform()
    text = service(
        "cloud",
        "type: LoadBalancer, clusterIP: 10.96.0.4, ports: [{port: 80}], loadBalancerSourceRanges: [203.0.113.0/24]",
    )
    pool = "apiVersion: cilium.io/v2alpha1\nkind: CiliumLoadBalancerIPPool\nmetadata: {name: blue}\nspec: {blocks: [{cidr: 192.0.2.0/28}]}\n"
    async with kit(tmp_path, platform) as made:
        made.resource("pool.yaml", pool)
        made.resource("a.yaml", text.replace("cloud", "aaa").replace("0.4", "0.5"))
        await until(lambda: row_of(made, "192.0.2.0", 80) is not None)
        made.resource("cloud.yaml", text)
        await until(lambda: row_of(made, "192.0.2.1", 80, Scope.EXTERNAL) is not None)
        assert row_of(made, "192.0.2.1", 80, Scope.EXTERNAL)["flags"] == ServiceFlag.SOURCE_RANGES
        assert row_of(made, "192.0.2.1", 80)["flags"] == 0, "who is on the node needs no permission"
        assert row_of(made, "10.96.0.4", 80, Scope.EXTERNAL) is None
        assert len(made.agent.datapath.map("lb_sources4").items()[0]) == 2
        (tmp_path / "resources" / "a.yaml").unlink()
        await until(lambda: "aaa" not in names(made))
    async with kit(tmp_path, platform) as made:
        await until(lambda: "cloud" in names(made))
        assert row_of(made, "192.0.2.1", 80) is not None
        assert row_of(made, "192.0.2.0", 80) is None


async def test_node_ports_follow_the_node_s_addresses_and_policies_differ_by_scope() -> None:
    text = service(
        "web",
        "type: NodePort, clusterIP: 10.96.0.3, externalTrafficPolicy: Local, selector: {app: web}, ports: [{port: 80, nodePort: 30080}]",
    )
    far = slices("web", ["10.9.9.9"], 80)
    async with kit() as made:
        hosts = made.agent.workloads.ipcache
        hosts.set_hosts({ip_address("192.0.2.1")})
        web = await made.agent.workloads.add("web", labels={"app": "web"})
        made.resource("web.yaml", text + far + slices("web", [str(web.ipv4)], 80).replace("web-4", "web-b"))
        await until(lambda: len(behind(made, "192.0.2.1", 30080)) == 2)
        assert behind(made, "192.0.2.1", 30080, Scope.EXTERNAL) == [f"{web.ipv4}:80"]
        hosts.set_hosts({ip_address("192.0.2.7"), ip_address("2001:db8::7")})
        await until(lambda: row_of(made, "192.0.2.7", 30080) is not None)
        assert row_of(made, "192.0.2.1", 30080) is None
        assert row_of(made, "2001:db8::7", 30080) is not None
        await made.agent.workloads.remove("web")
        await until(lambda: behind(made, "192.0.2.7", 30080, Scope.EXTERNAL) == [])
        assert len(behind(made, "192.0.2.7", 30080)) == 2, "of this node or not, the slice says it is there"


POD = """\
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: default}
spec:
  nodeName: NODE
  volumes: [{name: x}]
  containers:
  - name: a
    image: x
    ports: [{containerPort: 8080, hostPort: 80, name: http}, {containerPort: 9090}, {containerPort: 53, hostPort: 53, protocol: UDP, hostIP: 192.0.2.1}]
status: {podIP: 10.0.0.7, podIPs: [{ip: 10.0.0.7}, {ip: nonsense}]}
"""


async def test_host_ports_of_pods_of_this_node() -> None:
    async with kit() as made:
        made.agent.workloads.ipcache.set_hosts({ip_address("192.0.2.1"), ip_address("192.0.2.2")})
        made.resource("pod.yaml", POD.replace("NODE", made.agent.settings.node.node_name()))
        await until(lambda: behind(made, "192.0.2.2", 80, Scope.EXTERNAL) == ["10.0.0.7:8080"])
        assert {one.kind.value for one in names(made)["web:host-port"].frontends} == {"HostPort"}
        places = {
            (str(one.address), one.port, one.protocol) for one in names(made)["web:host-port"].frontends
        }
        assert places == {("192.0.2.1", 80, "TCP"), ("192.0.2.2", 80, "TCP"), ("192.0.2.1", 53, "UDP")}
        web = await made.agent.workloads.add("web")
        await until(lambda: behind(made, "192.0.2.1", 80) == [f"{web.ipv4}:8080"])
        made.resource("pod.yaml", POD.replace("NODE", "elsewhere"))
        await made.agent.workloads.remove("web")
        await until(lambda: row_of(made, "192.0.2.1", 80) is None)
        assert [one.message for one in names(made)["web:host-port"].problems] == [
            "the pod is not on this node"
        ]


def listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


async def test_a_health_check_port_opens_and_closes_as_the_service_changes_in_place() -> None:
    """Its addresses and backends stay as they are meanwhile, and so do its rows."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    text = service(
        "web",
        f"type: LoadBalancer, clusterIP: 10.96.0.10, externalTrafficPolicy: Local, healthCheckNodePort: {port}, ports: [{{port: 80}}]",
    )
    async with kit() as made:
        made.resource("web.yaml", text.replace("Local", "Cluster"))
        await until(lambda: "web" in names(made))
        assert not listens(port)
        made.resource("web.yaml", text)
        await until(lambda: listens(port))
        made.resource("web.yaml", text.replace("Local", "Cluster"))
        await until(lambda: not listens(port))


async def test_who_waits_for_an_address_gets_it_when_its_owner_did_not_come_back(tmp_path: Path) -> None:
    platform = FakePlatform()
    pool = "apiVersion: cilium.io/v2\nkind: CiliumLoadBalancerIPPool\nmetadata: {name: a}\nspec: {blocks: [{cidr: 192.0.2.0/32}]}\n"
    text = service("one", "type: LoadBalancer, clusterIP: 10.96.0.10, ports: [{port: 80}]")
    async with kit(tmp_path, platform) as made:
        made.resource("pool.yaml", pool)
        path = made.resource("one.yaml", text)
        await until(lambda: row_of(made, "192.0.2.0", 80) is not None)
    path.unlink()
    path.with_name("two.yaml").write_text(text.replace("name: one", "name: two"))
    async with kit(tmp_path, platform) as made:
        await until(lambda: "two" in names(made))
        await until(lambda: row_of(made, "192.0.2.0", 80) is not None)


async def test_an_external_ip_takes_no_other_service_s_cluster_ip() -> None:
    """CVE-2020-8554: whoever may write a service could have any namespace's traffic."""
    thief = service("aaa", "externalIPs: [10.96.0.10], ports: [{port: 80}]", namespace="aaa")
    async with kit() as made:
        path = made.resource("aaa.yaml", thief + slices("aaa", ["10.6.6.6"], namespace="aaa"))
        await until(lambda: behind(made, "10.96.0.10", 80) == ["10.6.6.6:8080"])
        made.resource("web.yaml", WEB + slices("web", ["10.0.0.1"]))
        await until(lambda: behind(made, "10.96.0.10", 80) == ["10.0.0.1:8080"])
        (problem,) = await until(lambda: names(made)["aaa"].problems)
        assert problem.message == "10.96.0.10:80/TCP belongs to default/web"
        path.unlink()
        await until(lambda: "aaa" not in names(made))
        own = WEB.replace("ports", "externalIPs: [10.96.0.10], internalTrafficPolicy: Local, ports")
        made.resource("web.yaml", own + slices("web", ["10.0.0.1"]))
        await until(lambda: row_of(made, "10.96.0.10", 80, Scope.EXTERNAL) is not None)
        assert behind(made, "10.96.0.10", 80) == [], "inside, its address is its ClusterIP first"


async def test_pools_that_overlap_are_said_where_people_look() -> None:
    pool = "apiVersion: cilium.io/v2\nkind: CiliumLoadBalancerIPPool\nmetadata: {{name: {}}}\nspec: {{blocks: [{{cidr: 192.0.2.0/{}}}]}}\n---\n"
    async with kit() as made:
        made.resource("pools.yaml", pool.format("a", 28) + pool.format("b", 30))
        rows = await until(lambda: show.pools(control.of(made.agent.context("lb")).catalog.addresses))
        assert [(row["name"], row["available"], row["problem"]) for row in rows] == [
            ("a", 16, ""),
            ("b", 4, "it overlaps with a: nothing is given from it"),
        ]
        health = control.of(made.agent.context("lb")).health()
        assert health.level is Level.DEGRADED
        assert "address pool b" in health.reason


async def test_another_configuration_takes_over_without_a_gap() -> None:
    async with kit() as made:
        made.resource("web.yaml", WEB + slices("web", ["10.0.0.1", "10.0.0.2"]))
        await until(lambda: len(behind(made, "10.96.0.10", 80)) == 2)
        number = row_of(made, "10.96.0.10", 80)["number"]
        made.configure(values(algorithm="maglev", maglev_size=251))
        await made.agent.reload()
        await until(lambda: len(behind(made, "10.96.0.10", 80)) == 251)
        assert row_of(made, "10.96.0.10", 80)["number"] == number
        assert names(made)["web"].frontends[0].number == number
        assert not names(made)["web"].problems
        made.resource("web.yaml", WEB + slices("web", ["10.0.0.1", "10.0.0.2", "10.0.0.3"]))
        (problem,) = await until(lambda: names(made)["web"].problems)
        assert "3 backends share a table of 251 slots, less than 100 each" in problem.message
        assert problem.hint == "say maglev-table-size: 509"


async def test_services_by_command_over_restarts(tmp_path: Path) -> None:
    platform = FakePlatform()
    wish: dict[str, Any] = {
        "name": "extra",
        "vips": ["10.96.0.9"],
        "port": 53,
        "backends": [{"address": "10.0.0.1", "port": 53}],
    }
    async with kit(tmp_path, platform) as made:
        call = made.client().call
        assert await asyncio.to_thread(call, "service.add", **wish) == {"service": "default/extra"}
        await until(lambda: behind(made, "10.96.0.9", 53))
        for wrong in ({**wish, "port": 99999}, {**wish, "vips": ["x"]}, {**wish, "colour": "red"}):
            with pytest.raises(RequestError):
                await asyncio.to_thread(call, "service.add", **wrong)
        made.resource("web.yaml", WEB)
        await until(lambda: "web" in names(made))
        with pytest.raises(RequestError, match="in a resource file"):
            await asyncio.to_thread(call, "service.add", **{**wish, "name": "web"})
    async with kit(tmp_path, platform) as made:
        await until(lambda: behind(made, "10.96.0.9", 53))
        call = made.client().call
        (explained,) = await asyncio.to_thread(call, "service.explain", frontend="10.96.0.9:53/tcp")
        assert [one["why"] for one in explained["backends"]] == ["used"]
        await asyncio.to_thread(call, "service.delete", name="extra")
        await until(lambda: row_of(made, "10.96.0.9", 53) is None)
        with pytest.raises(NotFoundError):
            await asyncio.to_thread(call, "service.delete", name="extra")


async def test_clients_that_keep_their_backend_may_only_keep_members() -> None:
    text = service("web", "clusterIP: 10.96.0.10, sessionAffinity: ClientIP, ports: [{port: 80}]")
    async with kit() as made:
        made.resource("web.yaml", text + slices("web", ["10.0.0.1", "10.0.0.2"]))
        await until(lambda: len(made.agent.datapath.map("lb_members").items()[0]) == 2)
        assert row_of(made, "10.96.0.10", 80)["affinity"] == 10_800
        made.resource("web.yaml", text + slices("web", ["10.0.0.2"]))
        await until(lambda: len(made.agent.datapath.map("lb_members").items()[0]) == 1)


async def test_what_a_cluster_would_do_and_nobody_does_here_is_said() -> None:
    async with kit() as made:
        made.resource(
            "s.yaml",
            service("headless", "clusterIP: None, ports: [{port: 80}]")
            + service("named", "type: ExternalName, externalName: example.org")
            + service("lonely", "ports: [{port: 80}]")
            + service("exposed", "type: NodePort, clusterIP: 10.96.0.3, ports: [{port: 80}]")
            + service(
                "cloud", "type: LoadBalancer, clusterIP: 10.96.0.4, ports: [{port: 80, nodePort: 30001}]"
            )
            + service("first", "clusterIP: 10.96.0.5, ports: [{port: 80}]")
            + service("second", "clusterIP: 10.96.0.5, ports: [{port: 80}]"),
        )
        await until(lambda: len(names(made)) == 7)
        said = {name: [one.message for one in row.problems] for name, row in names(made).items()}
        assert said == {
            "headless": ["a headless service has no address: there is nothing to balance"],
            "named": ["an external name is an answer of DNS: there is nothing to balance"],
            "lonely": ["it has no address"],
            "exposed": ["no node port for 80/TCP"],
            "cloud": ["there is no pool for it"],
            "first": [],
            "second": ["10.96.0.5:80/TCP belongs to default/first"],
        }
        assert all(row.problems[0].where.line for row in names(made).values() if row.problems)
        made.resource("s.yaml", service("second", "clusterIP: 10.96.0.5, ports: [{port: 80}]"))
        await until(lambda: names(made).keys() == {"second"} and not names(made)["second"].problems)


async def test_a_full_map_has_room_for_what_comes_as_something_goes() -> None:
    """In one batch what comes is written first, and finds no room: 1,024 rows, and later 1,024 members, are exactly all."""
    many = ", ".join(f"192.0.{number >> 8}.{number & 255}" for number in range(512))
    text = service("a", f"externalIPs: [{many}], ports: [{{port: 80}}]")
    sticky = service("a", "externalIPs: [192.0.2.1], sessionAffinity: ClientIP, ports: [{port: 80}]")
    sticky += slices("a", [f"10.0.{number >> 8}.{number & 255}" for number in range(512)])
    async with kit() as made:
        table, members = (made.agent.datapath.map(name) for name in ("lb_services4", "lb_members"))
        made.resource("a.yaml", text)
        await until(lambda: len(table.items()[0]) == 1024)
        engine = control.of(made.agent.context("lb")).engine
        made.resource("a.yaml", text.replace("name: a", "name: b").replace("192.0.", "192.1."))
        await until(lambda: row_of(made, "192.1.1.255", 80) is not None)
        assert len(table.items()[0]) == 1024
        made.resource("a.yaml", sticky)
        await until(lambda: len(members.items()[0]) == 1024)
        made.resource("a.yaml", sticky.replace("name: a", "name: b"))
        await until(lambda: "b" in names(made) and "a" not in names(made))
        assert len(members.items()[0]) == 1024
        assert control.of(made.agent.context("lb")).engine is engine, "it did not have to begin anew"


async def test_what_does_not_fit_is_said_and_fits_later() -> None:
    async with kit(slots=1024, maglev_size=1021, algorithm="maglev") as made:
        text = service("one", "clusterIP: 10.96.0.1, ports: [{port: 80}]") + slices("one", ["10.0.0.1"])
        other = service("two", "clusterIP: 10.96.0.2, ports: [{port: 80}]") + slices("two", ["10.0.0.2"])
        made.resource("one.yaml", text)
        await until(lambda: behind(made, "10.96.0.1", 80))
        path = made.resource("two.yaml", other)
        await until(lambda: "two" in names(made))
        assert [str(one) for one in names(made)["two"].problems] == [
            f"{path}:1: no room for more slots than 1,024 (raise lb.slots)"
        ]
        assert behind(made, "10.96.0.1", 80)
        assert behind(made, "10.96.0.2", 80) == []
        (made.folder / "resources" / "one.yaml").unlink()
        await until(lambda: behind(made, "10.96.0.2", 80))
        assert not names(made)["two"].problems
