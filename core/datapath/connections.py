"""The connection table as people read it: a row per connection, both directions in one.

The table has an entry per direction. People ask about connections, and so do tools that were written for Cilium, whose
entries have both directions in them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

import numpy as np

from axoneme.core.datapath.abi import TICK_SHIFT, ConnectionFlag, NextHop
from axoneme.core.datapath.conntrack import Rows, Timeouts, connection_numbers, ends_of, remaining, ticks

_PROTOCOLS: Final = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP"}
#: Of `_counterparts`: there is none.
_NONE: Final = -1


def rows(
    keys: Rows, values: Rows, timeouts: Timeouts, *, translated: bool = False
) -> Iterator[dict[str, Any]]:
    """A row per connection among the entries of one table, as JSON-like values.

    `source` and `destination` are the ends as the two of them know themselves: behind a service, the backend. `service` and
    `masqueraded` are what the asker took the destination for, and what the destination takes the asker for, where that
    is not the same; else empty. Counters are of both directions; `expires`, and `source_sent` and `destination_sent`, when either end sent last (0: never,
    as far as is known), are on the kernel's monotonic clock, in seconds.

    :param translated: only those whose packets get another source.
    """
    now_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    ends, now = ends_of(keys, values), ticks(now_ns)
    left = remaining(ends, values, timeouts, now)
    numbers = connection_numbers(ends)
    replies = (values["flags"] & ConnectionFlag.REPLY) > 0
    asking = np.flatnonzero(~replies)
    back = _counterparts(numbers, asking, np.flatnonzero(replies))
    # Where the table was full, the answers' entry may be the only one that is left.
    orphans = np.flatnonzero(replies & ~np.isin(numbers, numbers[asking]))
    pairs = [*zip(asking.tolist(), back.tolist(), strict=True), *((_NONE, int(at)) for at in orphans)]
    for ask, answer in pairs:
        row = _row(keys, values, ask, answer)
        if not translated or row["masqueraded"]:
            seconds = float(left[ask if ask != _NONE else answer])
            row["expires"] = int(now_ns / 1e9 + seconds)
            row["remaining"] = max(int(seconds), 0)
            row["age"] = _seconds(now - row.pop("created"))
            for sender in ("source", "destination"):
                seen = row[f"{sender}_sent"]
                row[f"{sender}_sent"] = 0 if seen is None else int(now_ns / 1e9 - _seconds(now - seen))
            yield row


def _counterparts(numbers: Rows, asking: Rows, answering: Rows) -> Rows:
    """For each entry of the asking direction, the one of the answers; `_NONE` where there is none."""
    if not len(answering):
        return np.full(len(asking), _NONE)
    order = answering[np.argsort(numbers[answering])]
    place = np.minimum(np.searchsorted(numbers[order], numbers[asking]), len(order) - 1)
    return np.where(numbers[order][place] == numbers[asking], order[place], _NONE)


def _row(keys: Rows, values: Rows, ask: int, answer: int) -> dict[str, Any]:
    """:param ask: the entry of the asking direction, or `_NONE`; then there is one of the answers."""
    at = ask if ask != _NONE else answer
    value = values[at]
    row = _sides(keys[at], value, reply=ask == _NONE)
    if row["service"] == row["destination"]:
        row["service"] = ""
    if row["masqueraded"] == row["source"]:
        row["masqueraded"] = ""
    counters = [values[one] for one in (ask, answer) if one != _NONE]
    return row | {
        "packets": sum(int(one["packets"]) for one in counters),
        "bytes": sum(int(one["bytes"]) for one in counters),
        "proxied": bool(value["next_hop"] == NextHop.PROXY),
        "service_id": int(value["service"]),
        "backend_id": int(value["backend"]),
        "created": int(value["created"]),
        "source_sent": None if ask == _NONE else int(values[ask]["last_seen"]),
        "destination_sent": None if answer == _NONE else int(values[answer]["last_seen"]),
    }


def _sides(key: Any, value: Any, *, reply: bool) -> dict[str, Any]:
    """What an entry says of the two ends, whichever of them it is that sends in its direction."""
    sender, receiver = ("destination", "source") if reply else ("source", "destination")
    disguises = ("masqueraded", "service") if reply else ("service", "masqueraded")
    came = _place(key, "saddr", "sport"), _place(key, "daddr", "dport")
    goes = came
    if value["flags"] & ConnectionFlag.NAT:
        goes = _place(value, "nat_saddr", "nat_sport"), _place(value, "nat_daddr", "nat_dport")
    protocol = int(key["protocol"])
    return {
        "protocol": _PROTOCOLS.get(protocol, str(protocol)),
        sender: came[0],
        receiver: goes[1],
        disguises[0]: came[1],
        disguises[1]: goes[0],
        f"{sender}_flags": int(value["tcp_sent"]),
        f"{receiver}_flags": int(value["tcp_seen"]),
        f"{sender}_identity": int(value["source_identity"]),
        f"{receiver}_identity": int(value["destination_identity"]),
        f"{sender}_endpoint": int(value["source_endpoint"]),
        f"{receiver}_endpoint": int(value["destination_endpoint"]),
    }


def _place(row: Any, address: str, port: str) -> str:
    """`10.0.0.1:80`, `[fd00::1]:80`."""
    packed = b"".join(int(word).to_bytes(4, "big") for word in row[address]["a"])
    if len(packed) == 4:
        return f"{IPv4Address(packed)}:{int(row[port])}"
    return f"[{IPv6Address(packed)}]:{int(row[port])}"


def _seconds(count: int) -> int:
    return int((count & 0xFFFFFFFF) * (1 << TICK_SHIFT) / 1e9)
