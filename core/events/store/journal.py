"""What the numbers in records stood for when they were written: endpoints, identities, rules and drop reasons."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any, Final, TypeVar

import attrs
import numpy as np
from attrs import field, frozen

from axoneme.core.datapath.abi import EventFlag, EventType
from axoneme.core.events.rules import Rule
from axoneme.core.events.store.codec import DamagedError, Records, packed, unpacked
from axoneme.core.events.store.frames import Frame, FrameKind
from axoneme.core.records import DropReason
from axoneme.core.workloads.endpoints import Endpoint, Identity, NamedPort

T = TypeVar("T")

#: Which fields of a record hold numbers of which kind.
FIELDS: Final = {
    "endpoints": ("source_endpoint", "destination_endpoint"),
    "identities": ("source_identity", "destination_identity"),
    "rules": ("egress_rule", "ingress_rule"),
}
#: What is kept of an endpoint: who it was, not how it was connected.
_ENDPOINT: Final = ("id", "name", "namespace", "ipv4", "ipv6", "identity", "labels", "named_ports")
_ADDRESSES: Final = ("ipv4", "ipv6")
#: Rows in one frame, so that it is never too large.
_MAX_ROWS: Final = 4096


@frozen
class Names:
    """What numbers stand for, as rows of the agent's own tables; missing is what was not known when it was written.

    :param endpoints: with `id`, `name`, `namespace`, `ipv4`, `ipv6`, `identity`, `labels` and
        `named_ports`; the rest is empty.
    :param reasons: why packets were dropped.
    """

    endpoints: Mapping[int, Endpoint] = field(factory=dict)
    identities: Mapping[int, Identity] = field(factory=dict)
    rules: Mapping[int, Rule] = field(factory=dict)
    reasons: Mapping[int, DropReason] = field(factory=dict)

    def with_(self, more: Names) -> Names:
        """These and `more`, which count where both have something."""
        return Names(
            {**self.endpoints, **more.endpoints},
            {**self.identities, **more.identities},
            {**self.rules, **more.rules},
            {**self.reasons, **more.reasons},
        )

    def rows(self) -> list[tuple[str, int, Any]]:
        """All of them: kind, number, row."""
        return [(kind, number, row) for kind in _KINDS for number, row in getattr(self, kind).items()]


def mentioned(records: Records, known: Names) -> Names:
    """What `known` says about the numbers in records."""
    found: dict[str, dict[int, Any]] = {"reasons": {}}
    for kind, columns in FIELDS.items():
        rows = getattr(known, kind)
        numbers = np.unique(np.concatenate([records[column] for column in columns])).tolist()
        found[kind] = {number: row for number in numbers if (row := rows.get(number)) is not None}
    told = (records["type"] == EventType.DROP) | ((records["flags"] & EventFlag.AUDITED) != 0)
    drops = records["reason"][told]
    for number in np.unique(drops).tolist():
        if (reason := known.reasons.get(number)) is not None:
            found["reasons"][number] = reason
    return Names(**found)


def journal_frames(rows: list[tuple[str, int, Any]]) -> list[Frame]:
    """Rows (kind, number, row) as frames."""
    made = []
    for start in range(0, len(rows), _MAX_ROWS):
        content: dict[str, list[Any]] = {}
        for kind, _, row in rows[start : start + _MAX_ROWS]:
            content.setdefault(kind, []).append(_KINDS[kind][0](row))
        made.append(packed(FrameKind.JOURNAL, json.dumps(content, separators=(",", ":")).encode()))
    return made


def names_of(frame: Frame) -> Names:
    """What a journal frame says. Raises `DamagedError`."""
    try:
        content = json.loads(unpacked(frame))
        return Names(**{kind: _read(kind, content.get(kind, ())) for kind in _KINDS})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DamagedError(f"a journal cannot be read: {error}") from error


def _read(kind: str, rows: Any) -> dict[int, Any]:
    _, read, number = _KINDS[kind]
    return {number(row): row for row in map(read, rows)}


def _write_endpoint(row: Endpoint) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in _ENDPOINT}
    values |= {name: str(address) for name in _ADDRESSES if (address := values[name]) is not None}
    values["named_ports"] = {name: attrs.asdict(port) for name, port in row.named_ports.items()}
    return {name: value for name, value in values.items() if value is not None}


def _read_endpoint(values: dict[str, Any]) -> Endpoint:
    known = _known(Endpoint, values)
    known |= {name: ip_address(values[name]) for name in _ADDRESSES if name in values}
    known["labels"] = tuple(map(str, values.get("labels", ())))
    ports = values.get("named_ports", {}).items()
    known["named_ports"] = {str(name): NamedPort(**_known(NamedPort, port)) for name, port in ports}
    return Endpoint(**known)


def _known(row: type[Any], values: dict[str, Any]) -> dict[str, Any]:
    """Those of the values that today's class has."""
    names = {attribute.name for attribute in attrs.fields(row)}
    return {name: value for name, value in values.items() if name in names}


def _written(row: Any) -> dict[str, Any]:
    return attrs.asdict(row)


def _reading(row: type[T]) -> Callable[[dict[str, Any]], T]:
    return lambda values: row(**_known(row, values))


#: By kind: to JSON, from JSON, the row's number.
_KINDS: Final[dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any], Callable[[Any], int]]]] = {
    "endpoints": (_write_endpoint, _read_endpoint, lambda row: int(row.id)),
    "identities": (
        lambda row: {"number": row.number, "labels": row.labels},
        lambda values: Identity(number=int(values["number"]), labels=tuple(values["labels"])),
        lambda row: int(row.number),
    ),
    "rules": (_written, _reading(Rule), lambda row: int(row.id)),
    "reasons": (_written, _reading(DropReason), lambda row: int(row.number)),
}
