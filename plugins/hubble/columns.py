"""Flows as columns: one numpy array per property, fixed-size numbers only.

Whatever has few distinct values (endpoints with their labels, services, nodes …) is a number of `names.Names`. A property of an
endpoint, such as its namespace, is therefore looked at once per distinct endpoint, however many flows there are; and an
endpoint whose labels change later is another number, so that what was written about it before stays as it was.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

import numpy as np
from attrs import field, frozen

from axoneme.plugins.hubble.names import Names

Array: TypeAlias = np.ndarray[Any, Any]
Columns: TypeAlias = Mapping[str, Array]

_U8, _U16, _U32, _U64 = np.uint8, np.uint16, np.uint32, np.uint64


class Has(enum.IntFlag):
    """What a flow has, where its columns alone do not tell, in the column `has`.

    ODD_IP: an address that is not written as the columns would write it. MESSAGE: the flow came as a message, which is kept.
    """

    SOURCE_IP = 1
    DESTINATION_IP = 2
    ODD_IP = 4
    EVENT_TYPE = 8
    PORTS = 16
    MESSAGE = 32


class Protocol(enum.IntEnum):
    """The kind of a flow's `l4`; the numbers are those of its fields."""

    NONE = 0
    TCP = 1
    UDP = 2
    ICMPV4 = 3
    ICMPV6 = 4
    SCTP = 5


class Reply(enum.IntEnum):
    """`is_reply`, which may be absent."""

    UNKNOWN = 0
    NO = 1
    YES = 2


#: In the column `tcp_flags`: the flow has flags, even if none of them is set. The others are bit n-1 for field n.
HAS_FLAGS: Final = 1 << 15

#: Every column. Enums have the numbers of the API. Addresses are IPv6 or IPv4-mapped, in two halves. The ports of ICMP are
#: type and code. `time` is ns since 1970, `lift` by how much
#: it is later than the record's, to be later than that of the flow before.
DTYPES: Final[Mapping[str, type[np.unsignedinteger[Any]]]] = {
    "time": _U64,
    "source_high": _U64,
    "source_low": _U64,
    "destination_high": _U64,
    "destination_low": _U64,
    "lift": _U32,
    "source": _U32,
    "destination": _U32,
    "egress_rule": _U32,
    "ingress_rule": _U32,
    "source_service": _U32,
    "destination_service": _U32,
    "source_names": _U32,
    "destination_names": _U32,
    "interface": _U32,
    "node": _U32,
    "source_port": _U16,
    "destination_port": _U16,
    "tcp_flags": _U16,
    "drop_reason": _U16,
    "sub_type": _U16,
    "event_type": _U8,
    "verdict": _U8,
    "protocol": _U8,
    "l7": _U8,
    "reply": _U8,
    "direction": _U8,
    "ip_version": _U8,
    "type": _U8,
    "trace_reason": _U8,
    "auth": _U8,
    "has": _U8,
}

#: Which columns hold numbers of which part of `Names`.
NAMED: Final[Mapping[str, tuple[str, ...]]] = {
    "endpoints": ("source", "destination"),
    "services": ("source_service", "destination_service"),
    "dns": ("source_names", "destination_names"),
    "interfaces": ("interface",),
    "nodes": ("node",),
}

#: Bytes per flow.
ROW_SIZE: Final = sum(np.dtype(dtype).itemsize for dtype in DTYPES.values())


def empty(count: int) -> dict[str, Array]:
    """Columns of that many flows, all zero."""
    return {name: np.zeros(count, dtype) for name, dtype in DTYPES.items()}


@frozen(eq=False)
class View:
    """A stretch of flows, oldest first.

    The arrays may be parts of the ring: they are to be used before anything is awaited.

    :param start: the number of the first one; a flow's number never changes while the ring lives.
    :param ids: what the flows' UUIDs are made of; None for their numbers.
    :param messages: the flows that came as messages, serialized, by number.
    """

    start: int
    columns: Columns
    names: Names
    messages: Mapping[int, bytes] = field(factory=dict)
    ids: Array | None = None

    def __len__(self) -> int:
        return len(self.columns["time"])

    def __getitem__(self, name: str) -> Array:
        return self.columns[name]

    def part(self, begin: int, end: int) -> View:
        """The flows at these places."""
        part = {name: column[begin:end] for name, column in self.columns.items()}
        ids = None if self.ids is None else self.ids[begin:end]
        return View(self.start + begin, part, self.names, self.messages, ids)

    def chosen(self, places: Array) -> View:
        """A copy with the flows at these places; not for views with messages."""
        part = {name: column[places] for name, column in self.columns.items()}
        return View(self.start, part, self.names, {}, None if self.ids is None else self.ids[places])

    def seeds(self) -> Array:
        """What the flows' UUIDs are made of."""
        return np.arange(self.start, self.start + len(self)) if self.ids is None else self.ids

    def chunks(self, size: int) -> Iterator[View]:
        for begin in range(0, len(self), size):
            yield self.part(begin, min(begin + size, len(self)))
