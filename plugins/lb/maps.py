"""The kernel's side of services: every map of the plugin, declared once.

A service's address is one row of `lb_services4` or `lb_services6`: the number of the service, and where its stretch of
`lb_slots` is. A stretch is nothing but numbers of backends, and what a stretch holds is the whole algorithm's data: each
backend as often as it has weight, or a Maglev table. Backends are rows of an array, so that a choice is one hash lookup and
two array accesses, however many services there are.

Who writes, in which order: backends, then a *new* stretch, then the row of the service, which thereby changes in one step.
What nothing refers to any more is given free a moment later, when no program can still be reading it.
"""

from __future__ import annotations

import enum
from typing import Any, Final, Literal, get_args

from attrs import field, frozen

from axoneme.core.datapath.abi import ADDRESS, CONNECTION, PREFIX, TUPLE
from axoneme.core.datapath.layout import Struct, array, be16, s32, u8, u16, u32, u64
from axoneme.core.datapath.maps import MapKind, MapSpec
from axoneme.core.net.devices import LIMIT as DEVICES

#: Bits of an LPM key in front of the address: the service's number.
SOURCE_PREFIX_BITS = 32


#: Sizes of consistent hashing tables that may be asked for: primes, as in Cilium.
TableSize = Literal[251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131071]
TABLE_SIZES: Final[tuple[int, ...]] = get_args(TableSize)
#: Slots per backend that such a table should have: below, loads differ from the weights by more than 1 %.
SLOTS_PER_BACKEND: Final = 100


class Scope(enum.IntEnum):
    """From where an address is used. The rows may differ: other policies of traffic, other backends."""

    INTERNAL = 0
    EXTERNAL = 1


class Algorithm(enum.IntEnum):
    """How a slot of the stretch is chosen."""

    RANDOM = 0
    ROUND_ROBIN = 1
    MAGLEV = 2
    LEAST_CONNECTIONS = 3


class ServiceFlag(enum.IntFlag):
    """SOURCE_RANGES: only clients in `lb_sources`. NO_SERVICE: the row of an address (port 0, protocol 0) all of whose
    other ports have no service: nothing may reach them. DSR: a backend answers the client itself. SKIP_BACKENDS: endpoints in
    `lb_skips` reach the address itself (local redirect policies, `skipRedirectFromBackend`)."""

    SOURCE_RANGES = 1
    NO_SERVICE = 2
    DSR = 4
    SKIP_BACKENDS = 8


class BackendFlag(enum.IntFlag):
    """USED: the row is a backend's; without it, it is nobody's. TERMINATING: it goes on for the connections that it has.
    REMOTE: no workload of this node."""

    USED = 1
    TERMINATING = 2
    REMOTE = 4


def _frontend(family: int) -> Struct:
    return Struct(
        f"lb_frontend{family}",
        {"address": ADDRESS[family], "port": be16, "protocol": u8, "scope": u8},
        "What a client asks for. Port and protocol 0: the address itself (`ServiceFlag.NO_SERVICE`).",
    )


FRONTEND = {4: _frontend(4), 6: _frontend(6)}

SERVICE = Struct(
    "lb_service",
    {
        "number": u32,
        "first": u32,
        "count": u32,
        "affinity": u32,
        "flags": u16,
        "algorithm": u8,
        "pad": u8,
    },
    """`number`: from 1 on, below the size of `lb_turns`. Slots `first` … `first + count - 1`; no slots: no backends. `affinity`:
    for how many seconds a client keeps its backend, 0: it does not.""",
)


def _backend(family: int) -> Struct:
    return Struct(
        f"lb_backend{family}",
        {"address": ADDRESS[family], "port": be16, "flags": u8, "protocol": u8},
        "A backend by its number, which both families share. Number 0 is none.",
    )


BACKEND = {4: _backend(4), 6: _backend(6)}


def _way(family: int) -> Struct:
    return Struct(
        f"lb_way{family}",
        {"address": ADDRESS[family], "number": u32, "port": be16, "pad": u16},
        "A backend elsewhere that a connection was given to. Its number may be another one's by now.",
    )


WAY = {4: _way(4), 6: _way(6)}

CLIENT = Struct(
    "lb_client",
    {"client": array(u32, 4), "service": u32, "kind": u32},
    "Who asks: an address (kind 4 or 6), or the network namespace of a socket (kind 0).",
)
AFFINITY = Struct(
    "lb_affinity_value", {"backend": u32, "used": u32}, "The backend a client had, and when (abi.TICK_SHIFT)."
)
MEMBER = Struct("lb_member", {"service": u32, "backend": u32}, "A backend that a service has now.")


def _source(family: int) -> Struct:
    return Struct(
        f"lb_source{family}",
        {"length": u32, "service": u32, "address": ADDRESS[family]},
        "Clients that a service is for. `length` counts the number of the service too.",
    )


SOURCE = {4: _source(4), 6: _source(6)}
SKIP = Struct("lb_skip", {"endpoint": u32, "service": u32}, "A workload that reaches the address itself.")


def _socket(family: int) -> Struct:
    address = ADDRESS[family]
    return Struct(
        f"lb_socket{family}",
        {
            "cookie": u64, "address": address, "port": be16, "peer_port": be16, "peer_address": address,
            "service": u32, "backend": u32, "check": u32,
        },
        """A socket, the backend that it talks to, and whom its owner thinks that it talks to. The place is computed from what is
        asked for, and who came later has it (`check` tells a note that two wrote or one still writes): as good as a table of the latest, and a fifth of its cost. Kept with each socket
        (SK_STORAGE) nothing would be forgotten, but a call of connect() would cost 820 ns instead of 140.""",
    )  # fmt: skip


SOCKET = {4: _socket(4), 6: _socket(6)}

PEER = Struct(
    "lb_peer",
    {"address": array(u32, 4), "peer_address": array(u32, 4), "port": be16, "peer_port": be16},
    """Of a connected UDP socket that was translated: its backend, and the service that its owner asked for; IPv4 as IPv4-mapped
    IPv6. It goes with the socket: it is needed as long as that lives.""",
)


@frozen(kw_only=True)
class Sizes:
    """Numbers of entries."""

    services: int = field(default=65_536)
    slots: int = field(default=1_048_576)
    backends: int = field(default=131_072)
    sockets: int = field(default=65_536)
    affinity: int = field(default=65_536)
    sources: int = field(default=65_536)
    native: int = field(default=4_096)

    @property
    def socket_places(self) -> int:
        """A power of two."""
        return int(1 << (self.sockets - 1).bit_length())


def specs(sizes: Sizes) -> tuple[MapSpec, ...]:
    """The declarations. Services count per family."""
    return (
        MapSpec("lb_slots", MapKind.ARRAY, u32, u32, sizes.slots, doc="numbers of backends, stretch by stretch"),
        MapSpec("lb_turns", MapKind.ARRAY, u32, u32, 2 * sizes.services, doc="round robin: turns, by service"),
        MapSpec("lb_loads", MapKind.ARRAY, u32, u32, sizes.backends, doc="live connections, by backend"),
        MapSpec("lb_affinity", MapKind.LRU_HASH, CLIENT, AFFINITY, sizes.affinity, doc="backends that clients keep"),
        MapSpec("lb_members", MapKind.HASH, MEMBER, u32, sizes.backends, doc="backends of services with affinity"),
        MapSpec("lb_skips", MapKind.HASH, SKIP, u32, 65_536, doc="workloads that reach an address itself"),
        MapSpec("lb_namespaces", MapKind.HASH, u64, u32, 65_536, doc="endpoints by network namespace cookie"),
        MapSpec("lb_peers", MapKind.SK_STORAGE, s32, PEER, 0, doc="services and backends of connected UDP sockets"),
        *(spec for family in (4, 6) for spec in _of_family(family, sizes)),
    )  # fmt: skip


def _moved(places: Any, notes: Any, size: int) -> Any:
    """Where notes about sockets go in a table of another size: `lb_place` in stages/socket.h, without its mask."""
    cookies = notes["cookie"].astype("u4")
    mixed = (notes["address"]["a"][:, -1].astype("u4") ^ notes["port"].astype("u4")) * 0x9E3779B1 >> 16
    unconnected = (cookies & (len(places) - 1)) != places
    return (cookies + mixed * unconnected) & (size - 1)


def _of_family(family: int, sizes: Sizes) -> tuple[MapSpec, ...]:
    return (
        MapSpec(
            f"lb_services{family}", MapKind.HASH, FRONTEND[family], SERVICE, sizes.services,
            doc="services by address, port, protocol and scope",
        ),
        MapSpec(
            f"lb_backends{family}", MapKind.ARRAY, u32, BACKEND[family], sizes.backends, doc="backends by number"
        ),
        MapSpec(
            f"lb_sources{family}", MapKind.LPM_TRIE, SOURCE[family], u32, sizes.sources,
            doc="clients that services with source ranges are for",
        ),
        MapSpec(
            f"lb_sockets{family}", MapKind.ARRAY, u32, SOCKET[family], sizes.socket_places,
            doc="services that sockets think they talk to", moved=_moved,
        ),
        MapSpec(
            f"lb_replies{family}", MapKind.PERCPU_ARRAY, u32, CONNECTION[family], 1,
            doc="an answer's entry before it is entered, per CPU",
        ),
        MapSpec(
            f"lb_ways{family}", MapKind.LRU_HASH, TUPLE[family], WAY[family], sizes.sockets,
            doc="backends elsewhere that answer clients themselves, by connection",
        ),
        MapSpec(
            f"lb_addresses{family}", MapKind.HASH, u32, ADDRESS[family], DEVICES,
            doc="the node's address on each of its devices, for what leaves by it",
        ),
        MapSpec(
            f"lb_native{family}", MapKind.LPM_TRIE, PREFIX[family], u32, sizes.native, flags=1,
            doc="prefixes that workloads reach with their own addresses",
        ),
    )  # fmt: skip


assert PREFIX[4].size == SOURCE[4].size - SOURCE_PREFIX_BITS // 8, (
    "the service's number stands before the address"
)
