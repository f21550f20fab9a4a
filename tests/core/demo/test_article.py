"""What the demo expects, against the article's own words."""

from __future__ import annotations

import pytest

from axoneme.core.demo.article import APPS, NAMED, RESOURCES, STATEMENTS, Flow, Way, expected, flows
from axoneme.core.state.yamlio import load

L4 = {"l4-lb-policy.yaml"}


def test_every_two_workloads_meet_on_every_port_in_both_families() -> None:
    made = list(flows())
    assert len(made) == len(set(made)) == 2 * sum(len(app.ports) * (len(APPS) - 1) for app in APPS)
    assert Flow("frontend", "backend-service", 9090, 6) in made
    assert Flow("backend-service", "frontend", 8080, 4) in made


def test_through_services_those_are_asked_that_have_one_and_everybody_asks_the_world() -> None:
    made = set(flows(tuple(Way)))
    more = made - set(flows())
    assert {flow.destination for flow in more} == {*NAMED, "outside"}
    assert Flow("frontend", "backend-service", 9090, 6, Way.SOCKET) in more
    assert not any(flow.source == "outside" for flow in made)


def test_who_is_no_workload_has_nothing_to_show_where_everybody_has_to() -> None:
    flow = Flow("outside", "frontend", 8080, 4)
    assert [expected(flow, active) for active in ((), ("cluster-wide-mtls.yaml",))] == ["allowed", "dropped"]


@pytest.mark.parametrize(
    ("source", "destination", "port", "verdict"),
    [
        ("api-gateway", "backend-service", 8080, "allowed"),
        ("api-gateway", "backend-service", 9090, "allowed"),
        ("frontend", "backend-service", 8080, "dropped"),
        ("backend-service", "database", 5432, "allowed"),
        ("backend-service", "cache", 6379, "allowed"),
        ("backend-service", "payment-service", 8080, "dropped"),
        ("database", "backend-service", 8080, "dropped"),
        ("frontend", "payment-service", 8080, "allowed"),
    ],
)
def test_what_the_l4_policy_says(source: str, destination: str, port: int, verdict: str) -> None:
    assert {expected(Flow(source, destination, port, family), L4) for family in (4, 6)} == {verdict}


def test_a_resource_that_is_not_in_force_says_nothing() -> None:
    assert {expected(flow, ()) for flow in flows()} == {"allowed"}


def test_all_resources_together_only_take_ways_away() -> None:
    every = {resource.file for resource in RESOURCES}
    dropped = {flow for flow in flows() if expected(flow, L4) == "dropped"}
    assert dropped < {flow for flow in flows() if expected(flow, every) == "dropped"}


def test_every_statement_is_about_a_resource_and_workloads_that_are_there() -> None:
    names, files = {app.name for app in APPS}, {resource.file for resource in RESOURCES}
    for statement in STATEMENTS:
        assert statement.file in files
        assert {statement.app, *(peer for peer, _ in statement.only)} <= names


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.file)
def test_the_resources_come_with_the_package(resource: object) -> None:
    documents = load(resource.text(), resource.file)  # type: ignore[attr-defined]
    assert documents[-1].value["apiVersion"] == "cilium.io/v2"


def test_a_resource_names_the_plugins_that_it_waits_for() -> None:
    waits = {resource.file: resource.missing(["policy"]) for resource in RESOURCES}
    assert waits["l4-lb-policy.yaml"] == ()
    assert waits["services.yaml"] == ("lb",)
    assert waits["mtls-authentication-policy.yaml"] == ("spire",)
    assert waits["l7-traffic-split.yaml"] == ("envoy",)
