"""The core's own maps and structs: what every program shares, declared once.

The C under bpf/ uses these names; the composer puts the generated definitions in front of it.
"""

from __future__ import annotations

import enum

from axoneme.core.datapath.layout import Struct, array, be16, be32, u8, u16, u32, u64
from axoneme.core.datapath.maps import MapKind, MapSpec
from axoneme.core.datapath.reasons import LIMIT
from axoneme.core.net.devices import LIMIT as DEVICES

#: BPF_F_NO_PREALLOC, which LPM tries require.
_NO_PREALLOC = 1


class EventType(enum.IntEnum):
    """What a record tells of.

    UPDATE is a sample of an established connection, with its counters so far; TRANSLATE a service's address that was
    exchanged at the socket, before there was a packet.
    """

    DROP = 1
    NEW = 2
    CLOSE = 3
    UPDATE = 4
    TRANSLATE = 5


class EventFlag(enum.IntFlag):
    """AUDITED: the traffic passed only because a policy is rehearsed; `reason` and the rules are those that would hold."""

    AUDITED = 1


class AttachPoint(enum.IntEnum):
    """Where an event was made; the number in its record."""

    from_workload = 1
    to_workload = 2
    from_network = 3
    to_network = 4
    xdp_network = 5


class NextHop(enum.IntEnum):
    STACK = 0
    LOCAL = 1
    DEVICE = 2
    PROXY = 3


class ConnectionFlag(enum.IntFlag):
    REPLY = 1
    CLOSED = 2
    NAT = 4


#: Time in connection entries is the monotonic clock in units of 2^TICK_SHIFT ns (16.8 ms), modulo 2^32.
TICK_SHIFT = 24

ADDRESS = {
    4: Struct("address4", {"a": array(be32, 1)}, "An IPv4 address."),
    6: Struct("address6", {"a": array(be32, 4)}, "An IPv6 address."),
}


def _tuple(family: int) -> Struct:
    address = ADDRESS[family]
    return Struct(
        f"tuple{family}",
        {
            "saddr": address,
            "daddr": address,
            "sport": be16,
            "dport": be16,
            "protocol": u8,
            "pad": array(u8, 3),
        },
        "The connection table's key: one direction of a connection. ICMP: both ports are the echo's identifier.",
    )


TUPLE = {4: _tuple(4), 6: _tuple(6)}

#: Words of a connection's entry that plugins share (`Stage.slots`).
SLOT_WORDS = 4


def _connection(family: int) -> Struct:
    address = ADDRESS[family]
    return Struct(
        f"connection{family}",
        {
            # The first 64 bytes are what every packet touches: together with the hash table's own 48 bytes and IPv4's
            # key of 16 they make two cache lines.
            "revision": u32,
            "last_seen": u32,
            "source_ifindex": u32,
            "flags": u8,
            "tcp_sent": u8,
            "tcp_seen": u8,
            "next_hop": u8,
            "ifindex": u32,
            "dmac": array(u8, 6),
            "smac": array(u8, 6),
            "packets": u64,
            "bytes": u64,
            "proxy_port": u16,
            "auth": u8,
            "layout": u8,
            "mark": u32,
            "nat_sport": be16,
            "nat_dport": be16,
            "nat_addresses": u16,
            "nat_ports": u16,
            # The rest is for translated packets, first packets, events and plugins.
            "nat_saddr": address,
            "nat_daddr": address,
            "service": u32,
            "backend": u32,
            "created": u32,
            "source_identity": u32,
            "destination_identity": u32,
            "egress_rule": u32,
            "ingress_rule": u32,
            "egress_l7": u32,
            "ingress_l7": u32,
            "source_endpoint": u16,
            "destination_endpoint": u16,
            "slot": array(u32, SLOT_WORDS),
        },
        """One direction of a connection, and everything that was decided about it. With `ConnectionFlag.NAT`, `nat_…` are
        the addresses and ports that its packets go on with, and what that adds to their checksums. `layout` tells whose
        words `slot` holds.""",
    )


CONNECTION = {4: _connection(4), 6: _connection(6)}

ENDPOINT = Struct(
    "endpoint",
    {
        "ifindex": u32,
        "identity": u32,
        "id": u16,
        "flags": u16,
        "mac": array(u8, 6),
        "node_mac": array(u8, 6),
    },
    "A workload of this node: its host-side interface, and the MAC addresses of both ends.",
)


def _prefix(family: int) -> Struct:
    return Struct(f"prefix{family}", {"length": u32, "address": ADDRESS[family]}, "A CIDR prefix.")


PREFIX = {4: _prefix(4), 6: _prefix(6)}

IPCACHE_ENTRY = Struct(
    "ipcache_entry",
    {"identity": u32, "flags": u32, "node": array(u8, 16), "key": u32},
    "Who is behind a prefix, on which node, and the key that encrypts towards it.",
)


def _fragment_key(family: int) -> Struct:
    address = ADDRESS[family]
    return Struct(
        f"fragment_key{family}",
        {"saddr": address, "daddr": address, "id": be32, "protocol": u8, "pad": array(u8, 3)},
        "A datagram that was cut into fragments.",
    )


FRAGMENT_KEY = {4: _fragment_key(4), 6: _fragment_key(6)}
FRAGMENT_PORTS = Struct(
    "fragment_ports", {"sport": be16, "dport": be16}, "The ports that its first fragment had."
)

RUNTIME = Struct("runtime", {"revision": u32, "pad": u32}, "What changes while programs run.")
ADMISSION = Struct(
    "admission",
    {"entered": u64, "refused": u64},
    "What programs did to one family's connection table: entries made, and new connections for which there was no room.",
)
GRANT = Struct(
    "grant",
    {"allowance": u64, "until": u64},
    """How far `entered` may go before new connections are refused, and when that ends (monotonic ns): later, nothing is.""",
)
COUNTER = Struct("counter", {"packets": u64, "bytes": u64}, "Packets and bytes, per CPU.")

EVENT = Struct(
    "event",
    {
        "time": u64,
        "type": u8,
        "family": u8,
        "protocol": u8,
        "tcp_flags": u8,
        "reason": u16,
        "attach_point": u8,
        "reply": u8,
        "icmp_type": u8,
        "auth": u8,
        "next_hop": u8,
        "flags": u8,
        "ifindex": u32,
        "saddr": array(be32, 4),
        "daddr": array(be32, 4),
        "sport": be16,
        "dport": be16,
        "source_endpoint": u16,
        "destination_endpoint": u16,
        "source_identity": u32,
        "destination_identity": u32,
        "egress_rule": u32,
        "ingress_rule": u32,
        "created": u32,
        "service": u32,
        "packets": u64,
        "bytes": u64,
        "reply_packets": u64,
        "reply_bytes": u64,
    },
    """One record of the ring (`EventType`). Addresses are IPv6 or IPv4-mapped. `flags` are of `EventFlag`, `service` is the
    number of the service whose address was exchanged, 0 for none; ICMP: `tcp_flags` is the code.""",
)


#: The context of a packet when it crosses a tail call, or the verifier's horizon (`blur`), as opaque words: room for
#: `struct packet6`, which C checks.
SCRATCH = Struct("scratch", {"words": array(u64, 40)})
AUDIT = Struct(
    "audit",
    {"rule": u32, "reason": u16, "egress": u8, "pad": u8},
    "Why the packet at hand would be dropped if what is rehearsed were enforced, by which rule of which side.",
)
PROXY_KEY = Struct(
    "proxy_key",
    {"proxy": u16, "protocol": u8, "family": u8},
    "A proxy of this node: its number (`connection.proxy_port`), and what its socket speaks.",
)


#: Entries by which a connection table is larger than its limit, per CPU, so that nothing gives way before the limit is
#: reached: the kernel's LRU keeps up to 128 free ones for each CPU (kernel/bpf/bpf_lru_list.c), and as many are for what may
#: be entered beyond the limit, by programs that asked at the same moment or for connections that are known.
CONNECTIONS_RESERVE = 256


def core_maps(
    *, connections: int, endpoints: int, ipcache: int, events: int, fragments: int = 8192, cpus: int = 1
) -> list[MapSpec]:
    """The core's maps. Sizes are numbers of entries; `events` is bytes, a power of two and whole pages.

    :param connections: the limit of a connection table; it has a reserve above that, for each of `cpus`.
    """
    maps = [
        MapSpec("runtime", MapKind.ARRAY, u32, RUNTIME, 1, doc="revision of the rules"),
        MapSpec("admissions", MapKind.ARRAY, u32, ADMISSION, 2, doc="entries made, by family (0: IPv4)"),
        MapSpec("grants", MapKind.ARRAY, u32, GRANT, 2, doc="entries that may be made, by family (0: IPv4)"),
        MapSpec(
            "counters", MapKind.PERCPU_ARRAY, u32, COUNTER, 2 * LIMIT, doc="packets by reason and direction"
        ),
        MapSpec("scratch", MapKind.PERCPU_ARRAY, u32, SCRATCH, 1, doc="a packet's context, per CPU"),
        MapSpec(
            "audits", MapKind.PERCPU_ARRAY, u32, AUDIT, 1, doc="what a rehearsed policy says of a packet"
        ),
        MapSpec("events", MapKind.RINGBUF, None, None, events, doc="drop, new and close records"),
        MapSpec("links", MapKind.HASH, u32, ENDPOINT, endpoints, doc="workloads by host-side interface"),
        MapSpec("devices", MapKind.HASH, u32, u32, DEVICES, doc="devices of the node for direct routing"),
        MapSpec("proxies", MapKind.SOCKHASH, PROXY_KEY, u64, 256, doc="sockets of the proxies of this node"),
    ]
    for family in (4, 6):
        maps += [
            MapSpec(
                f"connections{family}", MapKind.LRU_HASH, TUPLE[family], CONNECTION[family],
                connections + cpus * CONNECTIONS_RESERVE,
                doc="both directions of every connection",
            ),
            MapSpec(
                f"drafts{family}", MapKind.PERCPU_ARRAY, u32, CONNECTION[family], 1,
                doc="an entry before it is entered, per CPU",
            ),
            MapSpec(
                f"endpoints{family}", MapKind.HASH, ADDRESS[family], ENDPOINT, endpoints,
                doc="workloads of this node by address",
            ),
            MapSpec(
                f"ipcache{family}", MapKind.LPM_TRIE, PREFIX[family], IPCACHE_ENTRY, ipcache,
                flags=_NO_PREALLOC, doc="identities by prefix",
            ),
            MapSpec(
                f"fragments{family}", MapKind.LRU_HASH, FRAGMENT_KEY[family], FRAGMENT_PORTS, fragments,
                doc="ports of datagrams in fragments",
            ),
        ]  # fmt: skip
    return maps
