"""From columns to the bytes of messages, as many as are sent and no more.

A flow on the wire is put together of parts that were made before (`shapes.py`). Times, UUIDs and ports are written for all
flows at once, in fields of fixed length: a varint may end in zeros (protobuf's encoding asks for no shortest form), and
fields may come in any order.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from axoneme.plugins.hubble.columns import Array, Columns, Has, View
from axoneme.plugins.hubble.policies import Policies
from axoneme.plugins.hubble.proto.flow_pb2 import Flow
from axoneme.plugins.hubble.proto.observer_pb2 import GetFlowsResponse
from axoneme.plugins.hubble.shapes import (
    EGRESS,
    INGRESS,
    PORTS,
    Addresses,
    Named,
    PolicyParts,
    Shape,
    Shapes,
)
from axoneme.plugins.hubble.uuids import Uuids

#: Bytes of a Timestamp's content.
_TIME: Final = 12
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
        self._addresses = {"source": Addresses(0x0A), "destination": Addresses(0x12)}

    @property
    def rules(self) -> int:
        """Changes when the same rule may be told in other words, or for the first time."""
        return self._policies[0].policies.revision

    def flows(self, view: View, places: Array) -> list[bytes]:
        """Serialized `flow.Flow`s, of these places of a view."""
        if not len(places):
            return []
        columns, seeds = _columns(view, places), view.seeds()[places]
        made = self._bodies(columns, seeds, view, self._shapes.of(columns, view.names))
        for place, message in _kept(view, places):
            made[place] = message
        return made

    def responses(self, view: View, places: Array) -> list[bytes]:
        """Serialized `observer.GetFlowsResponse`s, of these places of a view."""
        if not len(places):
            return []
        columns, seeds = _columns(view, places), view.seeds()[places]
        shapes = self._shapes.of(columns, view.names)
        bodies = self._bodies(columns, seeds, view, shapes)
        told = _sliced(_beside(b"\xca\x3e\x0c", _times(columns["time"])))
        join, sizes = b"".join, _SIZES
        made = [
            join((sizes[len(body)], body, shape.node, time))
            for body, shape, time in zip(bodies, shapes, told, strict=True)
        ]
        for place, message in _kept(view, places):
            made[place] = response(Flow.FromString(message))
        return made

    def _bodies(self, columns: Columns, seeds: Array, view: View, shapes: list[Shape]) -> list[bytes]:
        """The flows."""
        stamps = _beside(b"\x0a\x0c", _times(columns["time"]), b"\x92\x02\x24", self.uuids.text(seeds))
        source, destination = (
            addresses.of(columns[f"{end}_high"], columns[f"{end}_low"])
            for end, addresses in self._addresses.items()
        )
        parts = [_ip_heads(columns["ip_version"], source, destination), source, destination, _sliced(stamps)]
        for field, part in _NAMED.items():
            if (numbers := columns[field]).any():
                parts.append(self._named[field].of(numbers, getattr(view.names, part)))
        parts += [found for each in self._policies if (found := each.of(columns)) is not None]
        join, ports = b"".join, _sliced(_ports(columns))
        return [
            join((shape.head, port, shape.foot, *rest)) if shape.has_ports else join((shape.head, *rest))
            for shape, port, rest in zip(shapes, ports, zip(*parts, strict=True), strict=True)
        ]


def _columns(view: View, places: Array) -> Columns:
    """Those that messages are made of, at these places, in their order."""
    first, last = int(places[0]), int(places[-1])
    if last - first + 1 == len(places) and (places[1:] > places[:-1]).all():
        return {name: column[first : last + 1] for name, column in view.columns.items()}
    return {name: column[places] for name, column in view.columns.items()}


def _ip_heads(versions: Array, source: list[bytes], destination: list[bytes]) -> list[bytes]:
    """The beginning of the field `IP`, of which the addresses are the rest."""
    heads = _IP_HEADS
    if (one := int(versions[0])) and (versions == one).all():
        return [heads[one, len(a) + len(b)] for a, b in zip(source, destination, strict=True)]
    made = []
    for place, version in enumerate(versions.tolist()):
        if not version:
            source[place] = destination[place] = b""
        made.append(heads[version, len(source[place]) + len(destination[place])] if version else b"")
    return made


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


def _ports(columns: Columns) -> Array:
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


class _IpHeads(dict[tuple[int, int], bytes]):
    """By the version, and the size of both addresses."""

    def __missing__(self, key: tuple[int, int]) -> bytes:
        version, size = key
        made = self[key] = bytes([0x2A, 2 + size, 0x18, version])
        return made


class _Sizes(dict[int, bytes]):
    """The beginning of a response, by the size of its flow."""

    def __missing__(self, size: int) -> bytes:
        made = self[size] = b"\x0a" + varint(size)
        return made


_SIZES: Final = _Sizes()
_IP_HEADS: Final = _IpHeads()
