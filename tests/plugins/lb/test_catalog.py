"""What becomes dirty when something changes, and what local redirect policies and host ports come to."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from lb_scenes import behind, kit, names, row_of, service, slices, until

from axoneme.plugins.lb.backends import Workload
from axoneme.plugins.lb.catalog import Catalog
from axoneme.plugins.lb.maps import Scope, ServiceFlag
from axoneme.plugins.lb.model import Service
from axoneme.plugins.lb.pools import Addresses
from axoneme.plugins.lb.resolve import Surroundings

REDIRECT = """\
apiVersion: cilium.io/v2
kind: CiliumLocalRedirectPolicy
metadata: {name: dns}
spec:
  skipRedirectFromBackend: true
  redirectFrontend: {serviceMatcher: {serviceName: dns, namespace: default}}
  redirectBackend:
    localEndpointSelector: {matchLabels: {app: cache}}
    toPorts: [{port: "5353", protocol: TCP}]
"""


async def test_a_local_redirect_takes_the_cluster_ip_while_it_has_somebody() -> None:
    original = service("dns", "clusterIP: 10.96.0.53, ports: [{port: 53}]") + slices("dns", ["10.0.0.1"], 53)
    async with kit() as made:
        made.resource("dns.yaml", original)
        made.resource("redirect.yaml", REDIRECT)
        await until(lambda: "dns:local-redirect" in names(made))
        assert behind(made, "10.96.0.53", 53) == ["10.0.0.1:53"]
        cache = await made.agent.workloads.add("cache", labels={"app": "cache"})
        await until(lambda: behind(made, "10.96.0.53", 53) == [f"{cache.ipv4}:5353"])
        row = row_of(made, "10.96.0.53", 53)
        assert row["flags"] == ServiceFlag.SKIP_BACKENDS
        assert made.agent.datapath.map("lb_skips").lookup(
            {"endpoint": cache.id, "service": int(row["number"])}
        )
        await made.agent.workloads.remove("cache")
        await until(lambda: behind(made, "10.96.0.53", 53) == ["10.0.0.1:53"])


async def test_the_next_policy_takes_over_when_one_goes() -> None:
    original = service("dns", "clusterIP: 10.96.0.53, ports: [{port: 53}]") + slices("dns", ["10.0.0.1"], 53)
    async with kit() as made:
        made.resource("dns.yaml", original)
        path = made.resource("a.yaml", REDIRECT.replace("name: dns}", "name: a}"))
        other = made.resource("b.yaml", REDIRECT.replace("name: dns}", "name: b}"))
        cache = await made.agent.workloads.add("cache", labels={"app": "cache"})
        await until(lambda: behind(made, "10.96.0.53", 53) == [f"{cache.ipv4}:5353"])
        (problem,) = names(made)["b:local-redirect"].problems
        assert problem.message == "it redirects nothing: a redirects the same service"
        path.unlink()
        await until(lambda: "a:local-redirect" not in names(made))
        assert behind(made, "10.96.0.53", 53) == [f"{cache.ipv4}:5353"]
        assert not names(made)["b:local-redirect"].problems
        other.unlink()
        await until(lambda: behind(made, "10.96.0.53", 53) == ["10.0.0.1:53"])


async def test_a_policy_takes_the_ports_that_it_names_and_no_other() -> None:
    ports = "ports: [{port: 53, name: dns}, {port: 9153, name: metrics}]"
    original = service("dns", f"clusterIP: 10.96.0.53, {ports}") + slices(
        "dns", ["10.0.0.1"], 9153, port_name="metrics"
    )
    policy = REDIRECT.replace(
        "namespace: default}}", 'namespace: default, toPorts: [{port: "53", protocol: TCP}]}}'
    )
    async with kit() as made:
        made.resource("dns.yaml", original)
        made.resource("redirect.yaml", policy)
        cache = await made.agent.workloads.add("cache", labels={"app": "cache"})
        await until(lambda: behind(made, "10.96.0.53", 53) == [f"{cache.ipv4}:5353"])
        assert behind(made, "10.96.0.53", 9153) == ["10.0.0.1:9153"]
        (problem,) = names(made)["dns"].problems
        assert problem.message == "53/TCP of its ClusterIP is redirected by dns"
        guard = row_of(made, "10.96.0.53", 0, protocol=0)
        assert guard["flags"] == ServiceFlag.NO_SERVICE
        made.resource("redirect.yaml", REDIRECT)  # all ports
        await until(lambda: behind(made, "10.96.0.53", 9153) == [f"{cache.ipv4}:5353"])
        (problem,) = names(made)["dns"].problems
        assert problem.message == "its ClusterIP is redirected by dns"
        assert row_of(made, "10.96.0.53", 0, protocol=0)["flags"] == ServiceFlag.NO_SERVICE
        made.resource("redirect.yaml", policy.replace('"53"', '"54"'))
        await until(lambda: behind(made, "10.96.0.53", 9153) == ["10.0.0.1:9153"])
        (problem,) = names(made)["dns:local-redirect"].problems
        assert problem.message == "it redirects nothing: default/dns is not there, or has none of its ports"


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
async def test_a_pod_that_is_over_has_no_host_ports(phase: str) -> None:
    pod = """\
apiVersion: v1
kind: Pod
metadata: {name: job}
spec: {nodeName: NODE, containers: [{name: a, ports: [{containerPort: 8080, hostPort: 80}]}]}
status: {phase: Running, podIPs: [{ip: 10.0.0.7}]}
"""
    async with kit() as made:
        made.agent.workloads.ipcache.set_hosts({ip_address("192.0.2.1")})
        pod = pod.replace("NODE", made.agent.settings.node.node_name())
        made.resource("pod.yaml", pod)
        await until(lambda: behind(made, "192.0.2.1", 80, Scope.EXTERNAL) == ["10.0.0.7:8080"])
        made.resource("pod.yaml", pod.replace("Running", phase))
        await until(lambda: row_of(made, "192.0.2.1", 80) is None)
        assert "job:host-port" not in names(made)


async def test_a_host_port_is_only_at_the_node_s_own_addresses() -> None:
    """Not at every workload's localhost, and not at other hosts' addresses, until they are the node's."""
    ports = "".join(
        f"{{containerPort: 8080, hostPort: 80{number}, hostIP: {ip}}}, "
        for number, ip in enumerate(("127.0.0.1", '"::1"', "192.0.2.1", "192.0.2.2"))
    )
    pod = f"""\
apiVersion: v1
kind: Pod
metadata: {{name: web}}
spec: {{nodeName: NODE, containers: [{{name: a, ports: [{ports}]}}]}}
status: {{podIPs: [{{ip: 10.0.0.7}}]}}
"""
    async with kit() as made:
        hosts = made.agent.workloads.ipcache
        hosts.set_hosts({ip_address("192.0.2.1")})
        made.resource("pod.yaml", pod.replace("NODE", made.agent.settings.node.node_name()))
        await until(lambda: behind(made, "192.0.2.1", 802) == ["10.0.0.7:8080"])
        assert row_of(made, "127.0.0.1", 800) is None
        assert row_of(made, "::1", 801) is None
        assert row_of(made, "192.0.2.2", 803) is None
        assert [one.message for one in names(made)["web:host-port"].problems] == [
            "hostIP 127.0.0.1 is every workload's own (loopback): port 800 is not served there",
            "hostIP ::1 is every workload's own (loopback): port 801 is not served there",
            "hostIP 192.0.2.2 is no address of this node: port 803 is not served there",
        ]
        hosts.set_hosts({ip_address("192.0.2.1"), ip_address("192.0.2.2")})
        await until(lambda: behind(made, "192.0.2.2", 803) == ["10.0.0.7:8080"])
        assert len(names(made)["web:host-port"].problems) == 2
        hosts.set_hosts({ip_address("192.0.2.1")})
        await until(lambda: row_of(made, "192.0.2.2", 803) is None)


def catalog() -> Catalog:
    return Catalog(Surroundings(), Addresses())


def test_a_workload_that_took_over_an_address_keeps_it_when_the_old_one_goes() -> None:
    """In one batch the new one may come before the old one is gone."""
    made, address = catalog(), ip_address("10.0.0.7")
    made.set_workload(1, Workload(1, "default", "web", (address,)))
    made.set_workload(2, Workload(2, "default", "web", (address,)))
    made.set_workload(1, None)
    assert made._own == {address.packed: 2}


def test_a_service_s_external_address_that_becomes_the_node_s_own_is_looked_at_again() -> None:
    made, address = catalog(), ip_address("192.0.2.9")
    made.set_resource(None, Service(namespace="default", name="web", external_ips=(address,)))
    made.take_dirty()
    made.set_surroundings(Surroundings(own=frozenset({address})))
    assert made.take_dirty() == [("default", "web")]
