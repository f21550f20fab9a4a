"""The envelope of resources: what is tolerated, what is an error, and what its status says."""

from __future__ import annotations

from typing import Any

import pytest

from axoneme.core.errors import ResourceError, Where
from axoneme.core.records import ResourceKind
from axoneme.core.state.resources import (
    Envelope,
    Kinds,
    Problem,
    Resource,
    Status,
    digest,
    expand,
    read_resource,
    reread,
)
from axoneme.core.state.yamlio import load


def parse(envelope: Envelope) -> Any:
    spec = envelope.fields.fields("spec")
    return spec.number("size"), spec.text("color", "red")


def crash(envelope: Envelope) -> Any:
    return envelope.fields.value["nope"]


KINDS = Kinds(
    [
        ResourceKind(api_version="axoneme.io/v1", kind="Widget", namespaced=True, parse=parse),
        ResourceKind(api_version="axoneme.io/v2", kind="Widget", namespaced=True, parse=parse),
        ResourceKind(api_version="axoneme.io/v1", kind="Cluster", namespaced=False, parse=parse),
        ResourceKind(api_version="axoneme.io/v1", kind="Crash", namespaced=True, parse=crash),
        ResourceKind(api_version="axoneme.io/v1", kind="Nothing", namespaced=True, parse=lambda _: None),
    ]
)
GOOD = "apiVersion: axoneme.io/v1\nkind: Widget\nmetadata: {name: a}\nspec: {size: 1}\n"


def read(text: str) -> Resource:
    return read_resource(load(text, "a.yaml")[0], KINDS, "test").resource


def messages(text: str) -> list[str]:
    return [str(problem) for problem in read(text).problems]


def test_a_valid_object() -> None:
    row = read(GOOD)
    assert (row.status, row.parsed, row.key) == (Status.VALID, (1, "red"), ("Widget", "default", "a"))
    assert str(row) == "Widget default/a"
    assert row.where == Where("a.yaml", 1, 1)
    assert row.digest == digest(row.raw)
    assert len(row.digest) == 32


def test_what_a_cluster_adds_is_tolerated() -> None:
    row = read(
        """
apiVersion: axoneme.io/v1
kind: Widget
metadata:
  name: a
  namespace: production
  uid: 5f3c
  labels: {app.kubernetes.io/name: shop, tier: ""}
  annotations: {note: "any text: at all"}
  resourceVersion: "1"
  generation: 3
  creationTimestamp: 2024-01-01T00:00:00Z
  managedFields: [{}]
  finalizers: [x]
  ownerReferences: []
spec: {size: 1}
status: {whatever: true}
"""
    )
    assert row.problems == ()
    assert (row.uid, row.namespace, row.labels["tier"], row.annotations["note"]) == (
        "5f3c",
        "production",
        "",
        "any text: at all",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            GOOD.replace("Widget", "Wigdet"),
            r"a.yaml:2 \(kind\): unknown kind 'Wigdet' \(did you mean Widget\?\)",
        ),
        (
            GOOD.replace("v1", "v3"),
            r"unknown apiVersion 'axoneme.io/v3' of Widget \(it is known in axoneme.io/v1, axoneme.io/v2\)",
        ),
        (GOOD.replace("name: a", "name: A_b"), r"a.yaml:3 \(metadata.name\): 'A_b' is not a valid name"),
        (GOOD.replace("name: a", "name: " + "a" * 254), "is not a valid name"),
        (GOOD.replace("name: a", "name: a, namespace: a.b"), "'a.b' is not a valid namespace"),
        (
            GOOD.replace("Widget", "Cluster").replace("name: a", "name: a, namespace: x"),
            "Cluster is cluster-wide",
        ),
        (GOOD.replace("name: a", "name: a, labels: {a: 1}"), r"\(metadata.labels.a\): expected text.*quotes"),
        (GOOD.replace("name: a", "name: a, labels: {-a: x}"), "'-a' is not a valid label key"),
        (GOOD.replace("name: a", "name: a, labels: {UP/a: x}"), "'UP/a' is not a valid label key"),
        (GOOD.replace("name: a", "name: a, labels: {a: x y}"), "'x y' is not a valid label value"),
        (GOOD.replace("name: a", "name: a, labels: [x]"), r"\(metadata.labels\): expected a mapping"),
        (GOOD.replace("name: a", "name: a, lables: {}"), r"unknown field 'lables' \(did you mean labels\?\)"),
        (GOOD.replace("size: 1", "size: big"), r"a.yaml:4 \(spec.size\): expected a whole number"),
        (GOOD.replace("size: 1", "size: 1, colour: x"), r"unknown field 'colour' \(did you mean color\?\)"),
        (GOOD + "extra: 1\n", r"a.yaml:5 \(extra\): unknown field 'extra'"),
        (GOOD.replace("Widget", "Crash"), "a.yaml:1: the reader of this kind failed: KeyError: 'nope'"),
        (GOOD.replace("Widget", "Nothing"), "it returned nothing"),
    ],
)
def test_problems_are_a_status(text: str, message: str) -> None:
    row = read(text)
    assert row.status is Status.INVALID
    assert row.parsed is None
    assert not row.in_effect
    (problem,) = row.problems
    with pytest.raises(ResourceError, match=message):
        raise ResourceError(problem.message, where=problem.where, hint=problem.hint)


def test_all_problems_of_an_object_are_told() -> None:
    text = GOOD.replace("name: a", "name: A, namespace: B, labels: {a: ' '}").replace("size: 1", "size: x")
    assert len(messages(text)) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: Widget\nmetadata: {name: a}", "'apiVersion' is missing"),
        ("apiVersion: v1\nmetadata: {name: a}", "'kind' is missing"),
        ("apiVersion: v1\nkind: Widget", "'metadata' is missing"),
        ("apiVersion: v1\nkind: Widget\nmetadata: {}", "'name' is missing"),
        ("apiVersion: v1\nkind: Widget\nmetadata: {name: 5}", "expected text"),
        ("just text", "expected a mapping, found text 'just text'"),
    ],
)
def test_nobody_knows_which_object(text: str, message: str) -> None:
    with pytest.raises(ResourceError, match=message):
        read(text)


@pytest.mark.parametrize(
    ("old", "new", "certain"),
    [
        ("", "", True),
        ("size: 1", "size: x", True),
        ("name: a", "name: A", False),
        ("Widget", "Gadget", False),
        ("v1", "v9", False),
    ],
)
def test_doubt_is_about_the_name_not_the_content(old: str, new: str, certain: bool) -> None:
    assert read_resource(load(GOOD.replace(old, new), "a.yaml")[0], KINDS, "test").certain is certain


def test_lists_are_taken_apart() -> None:
    text = "apiVersion: v1\nkind: List\nmetadata: {resourceVersion: ''}\nitems:\n" + "".join(
        f"- apiVersion: axoneme.io/v1\n  kind: Widget\n  metadata: {{name: n{i}}}\n  spec: {{size: x}}\n"
        for i in range(2)
    )
    rows = [read_resource(part, KINDS, "test").resource for part in expand(load(text, "a.yaml")[0])]
    assert [row.name for row in rows] == ["n0", "n1"]
    assert str(rows[1].problems[0]).startswith("a.yaml:12 (items[1].spec.size)")
    with pytest.raises(ResourceError, match="expected a list"):
        expand(load("kind: List\nitems: {a: 1}", "a.yaml")[0])


def test_digest_knows_no_order_of_keys() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})


def test_rereading_uses_other_kinds() -> None:
    other = Kinds(
        [
            ResourceKind(
                api_version="axoneme.io/v1",
                kind="Widget",
                namespaced=True,
                parse=lambda e: e.fields.raw("spec"),
            )
        ]
    )
    row = reread(read("\n\n" + GOOD), other)
    assert row.parsed == {"size": 1}
    assert row.where.line == 3
    assert reread(row, Kinds()).status is Status.INVALID


def test_problem_reads_as_its_error() -> None:
    assert str(Problem("bad", Where("a.yaml", 2), "fix it")) == "a.yaml:2: bad (fix it)"
