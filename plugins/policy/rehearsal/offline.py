"""Questions without an agent: workloads and policies out of files."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from axoneme.core.errors import ResourceError
from axoneme.core.state import yamlio
from axoneme.core.workloads.identities import FIRST, RESERVED, LabelError, check_labels, workload_labels
from axoneme.plugins.policy.explain import explain
from axoneme.plugins.policy.fields import Field
from axoneme.plugins.policy.model import Protocol
from axoneme.plugins.policy.parties import Workload
from axoneme.plugins.policy.rehearsal.inputs import Inputs, rehearse
from axoneme.plugins.policy.rehearsal.objects import objects_of, texts_of
from axoneme.plugins.policy.subject import Subject


def explain_files(
    files: Iterable[Path], workloads: Path, source: str, destination: str, port: str
) -> dict[str, Any]:
    """The answer of `policy.explain`, as an agent with these policies and workloads would give it."""
    made = rehearse(inputs_of(workloads).changed(objects_of(texts_of(files)).objects))
    return explain(made.engine, made.parties(), source, destination, port)


def inputs_of(path: Path) -> Inputs:
    """The workloads of a YAML list. Raises `ResourceError`.

    An element has `name`, and if wanted `namespace`, `labels`, `ports` (name → {port, protocol}) and `addresses`.
    """
    numbers: dict[tuple[str, ...], int] = {}
    found: list[Workload] = []
    for document in yamlio.load(texts_of([path])[0][1], str(path)):
        for item in Field(document.value, (), document.position).sequence():
            workload = _workload(item, len(found) + 1, numbers)
            if workload.name in {one.name for one in found}:
                item.fail(f"the workload {workload.name} is there twice")
            found.append(workload)
    identities = dict(RESERVED) | {number: labels for labels, number in numbers.items()}
    return Inputs(identities=identities, workloads=tuple(found))


def _workload(item: Field, endpoint: int, numbers: dict[tuple[str, ...], int]) -> Workload:
    parts = item.mapping(("name", "namespace", "labels", "ports", "addresses"))
    if "name" not in parts:
        item.fail("needs 'name'")
    namespace = parts["namespace"].string() if "namespace" in parts else "default"
    given = parts["labels"].mapping() if "labels" in parts else {}
    try:
        labels = check_labels({key: value.string() for key, value in given.items()})
    except LabelError as error:
        raise ResourceError(error.message, where=parts["labels"].where(), hint=error.hint) from None
    texts = workload_labels(labels, namespace)
    addresses = parts["addresses"].sequence() if "addresses" in parts else ()
    return Workload(
        endpoint=endpoint,
        name=f"{namespace}/{parts['name'].string()}",
        identity=numbers.setdefault(texts, FIRST + len(numbers)),
        subject=Subject(texts, _ports(parts.get("ports"))),
        addresses=tuple(_address(one) for one in addresses),
    )


def _ports(item: Field | None) -> tuple[tuple[str, Protocol, int], ...]:
    found = []
    for name, one in item.mapping().items() if item else ():
        parts = one.mapping(("port", "protocol"))
        if "port" not in parts:
            one.fail("needs 'port'")
        protocol = parts["protocol"].one_of(("TCP", "UDP", "SCTP")) if "protocol" in parts else "TCP"
        found.append((name, Protocol[protocol], parts["port"].integer(1, 65535)))
    return tuple(sorted(found))


def _address(item: Field) -> Any:
    try:
        return ip_address(item.string())
    except ValueError:
        item.fail(f"{item.value!r} is no address")
