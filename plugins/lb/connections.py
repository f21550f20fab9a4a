"""The connection table as people read it, and the translations in it: for `axoneme bpf ct list` and `bpf nat list`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

import numpy as np

from axoneme.core.datapath.abi import TICK_SHIFT, ConnectionFlag
from axoneme.core.datapath.conntrack import ticks
from axoneme.plugins.lb.show import place

Rows = np.ndarray[Any, Any]

_PROTOCOLS: Final = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP"}


def entries(keys: Rows, values: Rows, *, translated: bool = False) -> Iterator[dict[str, Any]]:
    """A row per direction.

    :param translated: only those with a translation.
    """
    now, clock = ticks(), time.monotonic_ns()
    nat = getattr(ConnectionFlag, "NAT", 0)
    names = values.dtype.names or ()
    for key, value in zip(keys, values, strict=True):
        flags = int(value["flags"])
        is_translated = bool(flags & nat)
        if translated and not is_translated:
            continue
        row = {
            "protocol": _PROTOCOLS.get(int(key["protocol"]), str(int(key["protocol"]))),
            "direction": "IN" if flags & ConnectionFlag.REPLY else "OUT",
            "source": _place(key["saddr"], key["sport"]),
            "destination": _place(key["daddr"], key["dport"]),
            "packets": int(value["packets"]),
            "bytes": int(value["bytes"]),
            "idle_seconds": _seconds(now - int(value["last_seen"])),
            "age_seconds": round(clock / 1e9 - _seconds(int(value["created"])), 1),
            "tcp_flags": f"{int(value['tcp_sent']):#04x}/{int(value['tcp_seen']):#04x}",
            "flags": [str(flag.name).lower() for flag in ConnectionFlag if flags & flag],
            "source_identity": int(value["source_identity"]),
            "destination_identity": int(value["destination_identity"]),
            "service": int(value["service"]) if "service" in names else 0,
            "backend": int(value["backend"]) if "backend" in names else 0,
        }
        if is_translated:
            row["translated_source"] = _place(value["nat_saddr"], value["nat_sport"])
            row["translated_destination"] = _place(value["nat_daddr"], value["nat_dport"])
        yield row


def _seconds(count: int) -> float:
    return round((count & 0xFFFFFFFF) * (1 << TICK_SHIFT) / 1e9, 1)


def _place(address: Any, port: Any) -> str:
    packed = b"".join(int(word).to_bytes(4, "big") for word in address["a"])
    one = IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)
    return place(one, int(port))
