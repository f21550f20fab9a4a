"""Label sets and their numbers, against the conformance corpus and as laws."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from axoneme.core.state.persist import Numbers, PersistError
from axoneme.core.state.table import State
from axoneme.core.workloads.endpoints import TABLES
from axoneme.core.workloads.identities import (
    FIRST,
    LAST,
    RESERVED,
    Identities,
    IdentityError,
    LabelError,
    check_labels,
    relevant,
    workload_labels,
)

CORPUS = Path(__file__).parents[2] / "conformance" / "policy"


def cases(name: str) -> Iterator[dict[str, Any]]:
    with gzip.open(CORPUS / name, "rt") as lines:
        yield from map(json.loads, lines)


@pytest.mark.parametrize(("name", "least"), [("handwritten.jsonl.gz", 2000), ("random.jsonl.gz", 3000)])
def test_the_labels_of_every_endpoint_of_the_corpus(name: str, least: int) -> None:
    checked = 0
    for case in cases(name):
        for key, endpoint in case["endpoints"].items():
            namespace = endpoint["namespace"]
            found = workload_labels(
                endpoint.get("labels", {}),
                namespace,
                namespace_labels=case["namespaces"][namespace]["labels"],
                service_account=endpoint.get("serviceAccount", ""),
                cluster=endpoint.get("cluster", "default"),
            )
            assert sorted(found) == sorted(case["expected"]["labels"][key]), f"{case['name']}: {key}"
            checked += 1
    assert checked >= least


@pytest.mark.parametrize(
    "key",
    [
        "app", "k8s-app", "app.kubernetes.io/name", "topology.kubernetes.io/zone", "example.com/kubernetes.io",
        "io.kubernetes.pod.namespace", "io.cilium.k8s.policy.cluster", "apps.kubernetes.io/other", "my-annotation",
        "batch.kubernetes.io/other", "pod-template", "statefulset.kubernetes.io/other", "beta.example.com/x",
    ],
)  # fmt: skip
def test_labels_that_make_an_identity(key: str) -> None:
    assert relevant(key)


@pytest.mark.parametrize(
    "key",
    [
        "io.kubernetes.foo", "kubernetes.io/arch", "k8s.io/bar", "statefulset.kubernetes.io/pod-name",
        "apps.kubernetes.io/pod-index", "batch.kubernetes.io/job-completion-index", "batch.kubernetes.io/controller-uid",
        "failure-domain.beta.kubernetes.io/zone", "beta.kubernetes.io/os", "pod-template-generation",
        "pod-template-hash", "controller-revision-hash", "controller-uid", "annotation.example", "etcd_node",
    ],
)  # fmt: skip
def test_labels_that_do_not(key: str) -> None:
    assert not relevant(key)


def test_nobody_poses_as_another_namespace_or_account() -> None:
    forged = {
        "io.cilium.k8s.policy.serviceaccount": "admin",
        "io.cilium.k8s.policy.cluster": "other",
        "io.cilium.k8s.namespace.labels.team": "blue",
        "io.kubernetes.pod.namespace": "kube-system",
    }
    assert workload_labels(forged, "default") == workload_labels({}, "default")


def test_a_namespace_without_labels_has_its_name() -> None:
    assert workload_labels({"app": "x"}, "shop", service_account="till", cluster="c1") == (
        "k8s:app=x",
        "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=shop",
        "k8s:io.cilium.k8s.policy.cluster=c1",
        "k8s:io.cilium.k8s.policy.serviceaccount=till",
        "k8s:io.kubernetes.pod.namespace=shop",
    )


@pytest.mark.parametrize(
    "labels", [{"": "x"}, {"a b": "x"}, {"a/b/c": "x"}, {"a": "b c"}, {"a" * 64: ""}, {"a": "-"}]
)
def test_labels_that_are_none(labels: dict[str, str]) -> None:
    with pytest.raises(LabelError):
        check_labels(labels)


def test_labels_that_are_some() -> None:
    labels = {"app": "", "app.kubernetes.io/name": "a.b_c-D", "A_b.c": "1"}
    assert check_labels(labels) == labels


@pytest.fixture
def identities(tmp_path: Path) -> Identities:
    return make(tmp_path)


def make(folder: Path, last: int = LAST) -> Identities:
    made = Identities(State(TABLES), Numbers(folder / "identities.json", FIRST, last, what="identity"))
    made.start()
    return made


def test_the_reserved_ones_are_there(identities: Identities) -> None:
    for number, labels in RESERVED.items():
        found = identities.get(number)
        assert found is not None
        assert found.labels == labels
        assert identities.lookup(labels) == found
    identities.release(1)
    assert identities.get(1) is not None


def test_equal_labels_are_one_identity(identities: Identities) -> None:
    one, two = identities.acquire(("k8s:a=1",)), identities.acquire(("k8s:a=1",))
    other = identities.acquire(("k8s:a=2",))
    assert (one.number, two.number, other.number) == (256, 256, 257)
    assert two.references == 2
    identities.release(256)
    assert identities.lookup(("k8s:a=1",)) is not None
    identities.release(256)
    assert identities.lookup(("k8s:a=1",)) is None
    identities.release(256)
    assert identities.acquire(("k8s:a=3",)).number == 258


def test_separators_in_labels_make_no_confusion(identities: Identities) -> None:
    assert (
        identities.acquire(("k8s:a=1,k8s:b=2",)).number != identities.acquire(("k8s:a=1", "k8s:b=2")).number
    )


def test_numbers_stay_over_restarts_and_unused_ones_are_freed(tmp_path: Path) -> None:
    first = make(tmp_path)
    numbers = {name: first.acquire((f"k8s:a={name}",)).number for name in "xyz"}
    again = make(tmp_path)
    assert again.acquire(("k8s:a=z",)).number == numbers["z"]
    assert again.forget_unused() == 2
    assert again.forget_unused() == 0
    assert again.acquire(("k8s:a=new",)).number not in numbers.values()


def test_used_up(tmp_path: Path) -> None:
    few = make(tmp_path, FIRST + 1)
    few.acquire(("k8s:a=1",))
    few.acquire(("k8s:a=2",))
    with pytest.raises(IdentityError, match="no identity left"):
        few.acquire(("k8s:a=3",))
    assert few.lookup(("k8s:a=3",)) is None


def test_a_disk_that_refuses_frees_later(identities: Identities, monkeypatch: pytest.MonkeyPatch) -> None:
    number = identities.acquire(("k8s:a=1",)).number

    def refuse(self: Numbers, *names: str) -> None:
        raise PersistError("no space left on device")

    monkeypatch.setattr(Numbers, "release", refuse)
    identities.release(number)
    assert identities.get(number) is None
    monkeypatch.undo()
    assert identities.forget_unused() == 1
