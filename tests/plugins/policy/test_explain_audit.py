"""Policies that are only rehearsed: what they would deny is explained, and nothing of them counts before it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from axoneme.plugins.policy.explain import explain
from axoneme.plugins.policy.rehearsal.diff import diff
from axoneme.plugins.policy.rehearsal.inputs import Inputs, rehearse
from axoneme.plugins.policy.rehearsal.objects import objects_of
from axoneme.plugins.policy.rehearsal.offline import inputs_of

WORKLOADS = "".join(
    f"- {{name: {name}, namespace: prod, labels: {{app: {name}}}}}\n" for name in ("db", "api", "web")
)
ENFORCED = """\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: db, namespace: prod}
spec:
  endpointSelector: {matchLabels: {app: db}}
  ingress:
    - fromEndpoints: [{matchLabels: {app: api}}]
      toPorts: [{ports: [{port: "5432", protocol: TCP}]}]
"""
AUDITED = ENFORCED.replace("namespace: prod}", "namespace: prod, annotations: {axoneme.io/mode: audit}}")


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    path = tmp_path / "workloads.yaml"
    path.write_text(WORKLOADS)
    return inputs_of(path)


def policies(inputs: Inputs, *texts: str) -> Inputs:
    return inputs.changed(objects_of([(f"{n}.yaml", text) for n, text in enumerate(texts)]).objects)


def ask(inputs: Inputs, *question: str) -> dict[str, Any]:
    made = rehearse(inputs)
    return explain(made.engine, made.parties(), *question)


def test_what_would_be_denied_is_told_with_a_rule_to_be_rehearsed_beside_it(inputs: Inputs) -> None:
    audited = policies(inputs, AUDITED)
    answer = ask(audited, "web", "db", "5432")
    side = answer["sides"][1]
    assert (answer["verdict"], side["verdict"], side["default_deny_by"]) == ("allowed", "allowed", [])
    assert side["audit"]["rule"]["path"] == "default-deny"
    assert [one["policy"] for one in side["audit"]["default_deny_by"]] == ["prod/db"]
    proposed = yaml.safe_load(side["suggestion_yaml"])
    assert proposed["metadata"]["annotations"] == {"axoneme.io/mode": "audit"}
    again = ask(policies(audited, side["suggestion_yaml"]), "web", "db", "5432")
    assert again["verdict"] == "allowed"
    assert again["sides"][1]["audit"] is None

    fine = ask(audited, "api", "db", "5432")["sides"][1]
    assert fine["audit"] is None
    assert [(one["outcome"], one["rule"]["path"]) for one in fine["considered"]] == [
        ("audited", "spec.ingress[0]")
    ]
    assert fine["considered"][0]["why"] == "it allows it, but its policy is only audited"


def test_the_rehearsal_of_one_policy_is_no_excuse_for_another(inputs: Inputs) -> None:
    """What is enforced denies, and the rule that is proposed is to be enforced, too."""
    other = AUDITED.replace("name: db", "name: more", 1).replace("app: api", "app: web")
    side = ask(policies(inputs, ENFORCED, other), "web", "db", "5432")["sides"][1]
    assert (side["verdict"], side["audit"]) == ("denied", None)
    assert [one["policy"] for one in side["default_deny_by"]] == ["prod/db"]
    assert {one["outcome"] for one in side["considered"]} == {"audited", "other-peer"}
    assert "annotations" not in yaml.safe_load(side["suggestion_yaml"])["metadata"]


def test_a_diff_shows_the_rehearsal_and_its_end(inputs: Inputs) -> None:
    audited, enforced = policies(inputs, AUDITED), policies(inputs, ENFORCED)

    def rows(before: Inputs, after: Inputs) -> set[tuple[str, str, str]]:
        found = diff(before, after)["changes"]
        return {
            (row["ports"], row["before"], row["after"]) for row in found if row["source"]["name"] == "app=web"
        }

    assert rows(inputs, audited) == {("any", "allow", "allow, audit denies")}
    assert rows(audited, enforced) == {("any", "allow, audit denies", "deny")}
    assert rows(enforced, audited) == {("any", "deny", "allow, audit denies")}
