"""What the demo waits for and asks for, against the file of services itself."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from types import SimpleNamespace as Row
from typing import Any

import pytest

from axoneme.core.demo import machine, services
from axoneme.core.demo.article import APPS, NAMED, OUTSIDE, RESOURCES, Way
from axoneme.core.demo.services import CALLS, addresses, ready, series
from axoneme.core.state.yamlio import load

FILE = [document.value for document in load(RESOURCES[0].text(), RESOURCES[0].file)]
BY_NAME: dict[str, Any] = {one["metadata"]["name"]: one for one in FILE if one["kind"] == "Service"}


def test_every_service_of_the_file_is_waited_for() -> None:
    assert set(BY_NAME) == set(services._SERVICES)
    for name, (workloads, _) in services._SERVICES.items():
        selector = BY_NAME[name]["spec"]["selector"].items()
        assert sum(selector <= app.labels.items() for app in APPS) == workloads


def test_those_that_are_called_by_a_services_name_serve_its_ports() -> None:
    ports = {app.name: app.ports for app in APPS}
    for name in NAMED:
        assert tuple(port["port"] for port in BY_NAME[name]["spec"]["ports"]) == ports[name]


def test_who_is_to_answer_has_the_weight() -> None:
    call = CALLS[0]
    annotation = BY_NAME["api-service"]["metadata"]["annotations"]["service.axoneme.io/weights"]
    weights = {
        name: int(weight) for name, _, weight in (one.partition("=") for one in annotation.split(", "))
    }
    assert {name: number // 2 for name, number in call.answers.items()} == weights


def test_the_world_finds_the_pools_at_the_node() -> None:
    [pool] = [one for one in FILE if one["kind"] == "CiliumLoadBalancerIPPool"]
    assert {ip_network(block["cidr"]) for block in pool["spec"]["blocks"]} == set(machine.POOLS.values())


def test_series_are_by_way_and_family() -> None:
    assert len(list(series())) == 10
    assert {way for call, way, _ in series() if call.source == OUTSIDE.name} == {Way.PACKET}


@pytest.mark.parametrize("active", [(), ("l4-lb-policy.yaml",)])
def test_the_policies_of_now_forbid_none_of_the_calls(active: tuple[str, ...]) -> None:
    assert all(call.possible(active) for call in CALLS)


def test_where_everybody_has_to_show_who_they_are_the_world_is_refused() -> None:
    refused = [call.service for call in CALLS if not call.possible(("cluster-wide-mtls.yaml",))]
    assert refused == ["frontend", "frontend"]


def rows(number: int = 1) -> tuple[list[Row], list[Row]]:
    fronts = {
        name: [
            Row(kind=kind, number=number, address=ip_address(address))
            for kind in kinds
            for address in ("10.96.0.1", "fd00:96::1")
        ]
        for name, (_, kinds) in services._SERVICES.items()
    }
    served = [Row(name=name, frontends=front) for name, front in fronts.items()]
    behind = [Row(name=name, addresses=range(2 * count)) for name, (count, _) in services._SERVICES.items()]
    return served, behind


def test_they_are_ready_once_all_addresses_are_in_the_kernel_with_everybody_behind_them() -> None:
    served, behind = rows()
    assert ready(served, behind)
    assert not ready(served[1:], behind)
    assert not ready(served, behind[1:])
    assert not ready(rows(number=0)[0], behind)


def test_an_address_is_found_by_its_kind_and_family() -> None:
    served, _ = rows()
    assert addresses(served, "frontend", "LoadBalancer")[6] == ip_address("fd00:96::1")
    assert addresses(served, "frontend", "NodePort") == machine.NODE
    assert addresses(served, "outside", "world") == machine.OUTSIDE
