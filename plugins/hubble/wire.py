"""From columns to the bytes of messages, as many as are sent and no more.

A flow on the wire is put together of parts that were made before (`shapes.py`). Times, UUIDs and ports are written for all
flows at once, in fields of fixed length: a varint may end in zeros (protobuf's encoding asks for no shortest form), and
fields may come in any order.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from typing import Any, Final

import numpy as np

from axoneme.plugins.hubble.columns import Array, Has, View
from axoneme.plugins.hubble.policies import Policies
from axoneme.plugins.hubble.proto.flow_pb2 import Flow
from axoneme.plugins.hubble.proto.observer_pb2 import GetFlowsResponse
from axoneme.plugins.hubble.shapes import (
    EGRESS,
    INGRESS,
    PORTS,
    Cached,
    Named,
    PolicyParts,
    Shapes,
    address_part,
)
from axoneme.plugins.hubble.uuids import Uuids

#: Bytes of a Timestamp's content.
_TIME: Final = 12
_SOURCE_TAG, _DESTINATION_TAG = 0x0A, 0x12
#: Fields that are numbers of `Names`, and the part of it.
_NAMED: Final = {
    "source": "endpoints", "destination": "endpoints", "interface": "interfaces", "source_service": "services",
    "destination_service": "services", "source_names": "dns", "destination_names": "dns",
}  # fmt: skip


class Wire:
    """Makes messages of the flows of one ring."""

    def __init__(self, uuids: Uuids, policies: Policies) -> None:
        self.uuids = uuids
        self._shapes = Shapes()
        self._named = {field: Named(field) for field in _NAMED}
        self._policies = (PolicyParts(EGRESS, policies), PolicyParts(INGRESS, policies))
        self._addresses = {
            "source": Cached(address_part(_SOURCE_TAG)), "destination": Cached(address_part(_DESTINATION_TAG)),
        }  # fmt: skip

    def flows(self, view: View, places: Array) -> list[bytes]:
        """Serialized `flow.Flow`s, of these places of a view."""
        if not len(places):
            return []
        made = [body for body, _, _ in self._bodies(view, places)]
        for place, message in _kept(view, places):
            made[place] = message
        return made

    def responses(self, view: View, places: Array) -> list[bytes]:
        """Serialized `observer.GetFlowsResponse`s, of these places of a view."""
        if not len(places):
            return []
        join, sizes = b"".join, _SIZES
        made = [join((sizes[len(body)], body, node, time)) for body, node, time in self._bodies(view, places)]
        for place, message in _kept(view, places):
            made[place] = response(Flow.FromString(message))
        return made

    def _bodies(self, view: View, places: Array) -> Iterator[tuple[bytes, bytes, bytes]]:
        """For each flow: itself, and the response's fields for its node and its time."""
        columns = {name: column[places] for name, column in view.columns.items()}
        shapes = self._shapes.of(columns, view.names)
        times = _times(columns["time"])
        stamp = _sliced(_beside(b"\x0a\x0c", times, b"\x92\x02\x24", self.uuids.text(view.seeds()[places])))
        told = _sliced(_beside(b"\xca\x3e\x0c", times))
        source, destination = self._ends(columns, "source"), self._ends(columns, "destination")
        parts: list[list[bytes] | repeat[bytes]] = [
            _ip_heads(columns["ip_version"], source, destination), source, destination, stamp,
            *self._named_parts(columns, view),
        ]  # fmt: skip
        parts += [found for each in self._policies if (found := each.of(columns)) is not None]
        ports = _sliced(_ports(columns))
        join = b"".join
        for shape, port, rest, time in zip(shapes, ports, zip(*parts, strict=True), told, strict=True):
            if shape.has_ports:
                yield join((shape.head, port, shape.foot, *rest)), shape.node, time
            else:
                yield join((shape.head, *rest)), shape.node, time

    def _named_parts(self, columns: dict[str, Array], view: View) -> Iterator[list[bytes]]:
        for field, part in _NAMED.items():
            if (numbers := columns[field]).any():
                yield self._named[field].of(numbers, getattr(view.names, part))

    def _ends(self, columns: dict[str, Array], end: str) -> list[bytes]:
        rows = np.stack([columns[f"{end}_high"], columns[f"{end}_low"]], axis=1)
        found = self._addresses[end].of(rows.view("V16").ravel().tolist())
        for place in np.flatnonzero(columns["ip_version"] == 0).tolist():
            found[place] = b""
        return found


def _ip_heads(versions: Array, source: list[bytes], destination: list[bytes]) -> list[bytes]:
    """The beginning of the field `IP`, of which the addresses are the rest."""
    return [
        b"" if not version else b"\x2a%c\x18%c" % (2 + len(one) + len(other), version)
        for version, one, other in zip(versions.tolist(), source, destination, strict=True)
    ]


def _kept(view: View, places: Array) -> list[tuple[int, bytes]]:
    """The flows that came as messages, by their index among the places."""
    found = np.flatnonzero(view["has"][places] & np.uint8(Has.MESSAGE)).tolist()
    return [(index, view.messages[view.start + int(places[index])]) for index in found]


def response(flow: Flow) -> bytes:
    """The answer that carries a flow; time and node are the flow's, as far as it has them."""
    made = GetFlowsResponse(flow=flow, node_name=flow.node_name)
    if flow.HasField("time"):
        made.time.CopyFrom(flow.time)
    return made.SerializeToString()


def _times(times: Array) -> Array:
    """Timestamps (n, 12): seconds and nanoseconds as varints of five bytes."""
    made = np.empty((len(times), _TIME), np.uint8)
    made[:, 0], made[:, 6] = 0x08, 0x10
    seconds = times // np.uint64(1_000_000_000)
    _varints(made[:, 1:6], seconds)
    _varints(made[:, 7:12], times - seconds * np.uint64(1_000_000_000))
    return made


def _ports(columns: dict[str, Array]) -> Array:
    """The fields `source_port` and `destination_port` (n, 8)."""
    made = np.empty((len(columns["time"]), PORTS), np.uint8)
    made[:, 0], made[:, 4] = 0x08, 0x10
    _varints(made[:, 1:4], columns["source_port"])
    _varints(made[:, 5:8], columns["destination_port"])
    return made


def _varints(into: Array, numbers: Array) -> None:
    """Varints that fill the width, the last bytes being zero where the number is small."""
    last = into.shape[1] - 1
    rest = numbers.astype(np.uint64)
    for place in range(last + 1):
        into[:, place] = rest & np.uint64(0x7F) if place == last else rest & np.uint64(0x7F) | np.uint64(0x80)
        rest = rest >> np.uint64(7)


def _beside(*parts: bytes | Array) -> Array:
    """Columns of bytes beside each other; a constant is the same in all rows."""
    count = next(len(part) for part in parts if not isinstance(part, bytes))
    widths = [len(part) if isinstance(part, bytes) else part.shape[1] for part in parts]
    made, place = np.empty((count, sum(widths)), np.uint8), 0
    for part, width in zip(parts, widths, strict=True):
        made[:, place : place + width] = np.frombuffer(part, np.uint8) if isinstance(part, bytes) else part
        place += width
    return made


def _sliced(rows: Array) -> list[bytes]:
    made: list[bytes] = np.ascontiguousarray(rows).view(f"V{rows.shape[1]}").ravel().tolist()
    return made


def varint(number: int) -> bytes:
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)


class _Sizes(dict[int, bytes]):
    """The beginning of a response, by the size of its flow."""

    def __missing__(self, size: int) -> bytes:
        made = self[size] = b"\x0a" + varint(size)
        return made


_SIZES: Any = _Sizes()
