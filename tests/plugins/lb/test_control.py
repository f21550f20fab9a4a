"""From resources and workloads to maps and tables, in a whole agent on a kernel in memory."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Any

from scenes import kit, service, slices, until

from axoneme.core.testing.agent import AgentKit, FakePlatform
from axoneme.core.workloads.endpoints import NamedPort
from axoneme.plugins.lb import control
from axoneme.plugins.lb.image import row_key
from axoneme.plugins.lb.maps import BackendFlag, Scope
from axoneme.plugins.lb.tables import BackendsRow, ServiceRow

WEB = service("web", "clusterIP: 10.96.0.10, ports: [{port: 80}]")


def names(made: AgentKit) -> dict[str, ServiceRow]:
    return {row.name: row for row in made.agent.state.table("services", ServiceRow).all()}


def row_of(made: AgentKit, address: str, port: int, scope: Scope = Scope.INTERNAL) -> Any:
    one = ip_address(address)
    return made.agent.datapath.map(f"lb_services{one.version}").lookup(row_key(one, port, 6, scope))


def behind(made: AgentKit, address: str, port: int, scope: Scope = Scope.INTERNAL) -> list[str]:
    """The backends that the kernel chooses from, as `address:port`; slot by slot."""
    row = row_of(made, address, port, scope)
    if row is None:
        return []
    version = ip_address(address).version
    backends = made.agent.datapath.map(f"lb_backends{version}")
    slots = made.agent.datapath.map("lb_slots")
    found = []
    for slot in range(int(row["first"]), int(row["first"] + row["count"])):
        one = backends.lookup(slots.lookup(slot))
        assert one["flags"] & BackendFlag.USED
        words = b"".join(int(word).to_bytes(4, "big") for word in one["address"]["a"])
        found.append(f"{ip_address(words)}:{int(one['port'])}")
    return found


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
