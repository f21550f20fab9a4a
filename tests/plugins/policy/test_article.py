"""The article's policies, as they stand there, between the article's workloads."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from axoneme.core.workloads.identities import RESERVED, workload_labels
from axoneme.plugins.policy.engine import Engine
from axoneme.plugins.policy.language import parse_policy
from axoneme.plugins.policy.model import Auth, Direction, Protocol
from axoneme.plugins.policy.selectors import Identity
from axoneme.plugins.policy.statements import Verdict
from axoneme.plugins.policy.subject import Subject

L4 = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: backend-l4-policy, namespace: production}
spec:
  endpointSelector: {matchLabels: {app: backend-service}}
  ingress:
    - fromEndpoints: [{matchLabels: {app: api-gateway}}]
      toPorts: [{ports: [{port: '8080', protocol: TCP}, {port: '9090', protocol: TCP}]}]
  egress:
    - toEndpoints: [{matchLabels: {app: database}}]
      toPorts: [{ports: [{port: '5432', protocol: TCP}]}]
    - toEndpoints: [{matchLabels: {app: cache}}]
      toPorts: [{ports: [{port: '6379', protocol: TCP}]}]
"""
MUTUAL = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: require-mutual-auth, namespace: production}
spec:
  endpointSelector: {matchLabels: {app: payment-service}}
  ingress:
    - fromEndpoints: [{matchLabels: {app: order-service}}]
      authentication: {mode: required}
      toPorts: [{ports: [{port: '8080', protocol: TCP}]}]
"""
CLUSTER = """
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: enforce-mtls-cluster-wide}
spec:
  endpointSelector:
    matchExpressions: [{key: io.kubernetes.pod.namespace, operator: NotIn, values: [kube-system]}]
  ingress: [{fromEndpoints: [{}], authentication: {mode: required}}]
"""
LIMITED = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: api-l7-with-ratelimit, namespace: production}
spec:
  endpointSelector: {matchLabels: {app: public-api}}
  ingress:
    - fromEndpoints: [{matchLabels: {app: frontend}}]
      toPorts:
        - ports: [{port: '8080', protocol: TCP}]
          rules:
            http:
              - {method: GET, path: '/api/v1/products.*'}
              - {method: GET, path: '/api/v1/categories.*'}
              - {method: POST, path: '/api/v1/orders', headers: ['Content-Type: application/json']}
"""
APPS = (
    "payment-service", "order-service", "api-gateway", "backend-service", "database", "cache", "frontend", "public-api",
)  # fmt: skip
NUMBER = {app: number for number, app in enumerate(APPS, 256)}


def engine(*texts: str) -> Engine:
    made = Engine()
    for number, labels in RESERVED.items():
        made.upsert_identity(Identity(number, labels))
    for app, number in NUMBER.items():
        labels = workload_labels({"app": app}, "production")
        made.upsert_identity(Identity(number, labels))
        made.upsert_subject(number, Subject(labels))
    for text in texts:
        made.upsert_policy(parse_policy(yaml.safe_load(text)))
    made.commit()
    return made


def between(made: Engine, source: str, target: str, port: int) -> tuple[Verdict, Verdict]:
    """Egress of the source, ingress of the target."""
    ends = (
        (NUMBER[source], Direction.EGRESS, NUMBER[target]),
        (NUMBER[target], Direction.INGRESS, NUMBER[source]),
    )
    egress, ingress = (made.verdict(*end, int(Protocol.TCP), port) for end in ends)
    assert egress is not None
    assert ingress is not None
    return egress, ingress


@pytest.mark.parametrize(
    ("source", "target", "port", "passes"),
    [
        ("api-gateway", "backend-service", 8080, True),
        ("api-gateway", "backend-service", 9090, True),
        ("api-gateway", "backend-service", 80, False),
        ("frontend", "backend-service", 8080, False),
        ("backend-service", "database", 5432, True),
        ("backend-service", "database", 6379, False),
        ("backend-service", "cache", 6379, True),
        ("backend-service", "frontend", 8080, False),
        ("frontend", "database", 5432, True),
    ],
)
def test_the_l4_policy(source: str, target: str, port: int, passes: bool) -> None:
    assert all(verdict.allow for verdict in between(engine(L4), source, target, port)) is passes


def test_mutual_authentication_is_asked_for() -> None:
    _, ingress = between(engine(MUTUAL), "order-service", "payment-service", 8080)
    assert ingress.allow
    assert ingress.auth is Auth.REQUIRED
    assert not between(engine(MUTUAL), "frontend", "payment-service", 8080)[1].allow


def test_the_cluster_wide_policy_asks_everybody() -> None:
    made = engine(CLUSTER)
    for source, target in (("frontend", "cache"), ("cache", "frontend")):
        _, ingress = between(made, source, target, 80)
        assert (ingress.allow, ingress.auth) == (True, Auth.REQUIRED)
    host = made.verdict(NUMBER["cache"], Direction.INGRESS, 1, int(Protocol.TCP), 80)
    assert host is not None
    assert (host.allow, host.auth) == (True, None)


def test_layer_7_rules_are_a_redirect_with_their_rules() -> None:
    _, ingress = between(engine(LIMITED), "frontend", "public-api", 8080)
    assert ingress.l7 is not None
    assert ingress.l7.kind == "http"
    assert len(ingress.l7.rules) == 3


def test_all_of_them_together_leave_each_its_own() -> None:
    """The cluster-wide policy puts everybody in default deny of ingress and asks for authentication, L4 ports or not."""
    made = engine(L4, MUTUAL, CLUSTER, LIMITED)
    _, ingress = between(made, "api-gateway", "backend-service", 8080)
    assert (ingress.allow, ingress.auth) == (True, Auth.REQUIRED)
    egress, _ = between(made, "backend-service", "frontend", 80)
    assert not egress.allow


def answer(text: str) -> dict[str, Any]:
    from axoneme.plugins.policy.api import describe

    return describe(
        engine(text), {number: f"production/{app}" for app, number in NUMBER.items()}, "backend-service"
    )


def test_what_policy_get_shows() -> None:
    from axoneme.plugins.policy.cli import table

    shown = answer(L4)
    (workload,) = shown["workloads"]
    assert workload["ingress"]["enforced"]
    text = table(shown)
    assert "8080/TCP" in text
    assert "backend-l4-policy spec.ingress[0]" in text
    assert json.loads(json.dumps(shown)) == shown
