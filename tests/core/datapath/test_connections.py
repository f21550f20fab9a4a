"""Rows of the connection table: what each of the two ends is called, whichever entry is there to tell of it."""

from __future__ import annotations

import time
from typing import Any

from axoneme.core.datapath.abi import CONNECTION, TICK_SHIFT, TUPLE, ConnectionFlag, NextHop
from axoneme.core.datapath.connections import rows
from axoneme.core.datapath.conntrack import Timeouts

TIMEOUTS = Timeouts(tcp=100.0, tcp_opening=30.0, tcp_closing=5.0, other=20.0)
SECOND = 1e9 / (1 << TICK_SHIFT)
CLIENT, BACKEND, VIP, NODE = (0x0A000001, 4000), (0x0A000002, 8080), (0x0A600001, 80), (0xC0A80001, 5000)

Entry = tuple[dict[str, Any], dict[str, Any]]


def entry(
    source: tuple[int, int],
    destination: tuple[int, int],
    *,
    goes: tuple[tuple[int, int], tuple[int, int]] | None = None,
    reply: bool = False,
    protocol: int = 6,
    **value: Any,
) -> Entry:
    """:param goes: the ends that packets go on with."""
    now = (time.clock_gettime_ns(time.CLOCK_MONOTONIC) >> TICK_SHIFT) & 0xFFFFFFFF
    key = {
        "saddr": {"a": (source[0],)}, "daddr": {"a": (destination[0],)},
        "sport": source[1], "dport": destination[1], "protocol": protocol,
    }  # fmt: skip
    made = {"last_seen": now, "created": now - int(9 * SECOND), "packets": 1, "bytes": 60, **value}
    made["flags"] = ConnectionFlag.REPLY if reply else 0
    if goes is not None:
        made["flags"] |= ConnectionFlag.NAT
        for side, (address, port) in zip("sd", goes, strict=True):
            made |= {f"nat_{side}addr": {"a": (address,)}, f"nat_{side}port": port}
    return key, made


def told(*entries: Entry, translated: bool = False) -> list[dict[str, Any]]:
    keys = TUPLE[4].array([key for key, _ in entries])
    return [
        *rows(keys, CONNECTION[4].array([value for _, value in entries]), TIMEOUTS, translated=translated)
    ]


def test_both_directions_are_one_row_and_their_counters_are_added() -> None:
    asking = entry(CLIENT, BACKEND, packets=3, bytes=180, tcp_sent=2, tcp_seen=2, source_identity=300,
                   destination_identity=400, source_endpoint=1, destination_endpoint=2)  # fmt: skip
    answering = entry(BACKEND, CLIENT, reply=True, packets=2, bytes=120)
    other = entry((0x0A000009, 1), BACKEND, protocol=17, next_hop=NextHop.PROXY)
    first, second = sorted(told(answering, other, asking), key=lambda row: row["protocol"])
    assert {key: first[key] for key in ("source", "destination", "service", "masqueraded", "proxied")} == {
        "source": "10.0.0.1:4000", "destination": "10.0.0.2:8080", "service": "", "masqueraded": "", "proxied": False,
    }  # fmt: skip
    assert (first["packets"], first["bytes"]) == (5, 300)
    assert (first["source_flags"], first["destination_flags"]) == (2, 2)
    assert (first["source_identity"], first["destination_identity"]) == (300, 400)
    assert first["age"] in (8, 9)
    assert first["remaining"] in (99, 100)
    assert abs(first["expires"] - time.clock_gettime(time.CLOCK_MONOTONIC) - 100) <= 2
    assert (second["protocol"], second["packets"], second["proxied"]) == ("UDP", 1, True)
    assert second["remaining"] in (19, 20)


def test_an_entry_of_either_direction_alone_tells_the_same_ends() -> None:
    """A service's connection that also leaves the node under another address, as at the edge."""
    sides = {"service": 7, "backend": 3}
    asking = entry(CLIENT, VIP, goes=(NODE, BACKEND), tcp_sent=2, tcp_seen=1, source_identity=2,
                   destination_identity=400, source_endpoint=0, destination_endpoint=5, **sides)  # fmt: skip
    answering = entry(BACKEND, NODE, goes=(VIP, CLIENT), reply=True, tcp_sent=1, tcp_seen=2, source_identity=400,
                      destination_identity=2, source_endpoint=5, destination_endpoint=0, **sides)  # fmt: skip
    both, alone, orphan = told(asking, answering), told(asking), told(answering)
    assert both[0]["packets"] == 2
    for (row,) in (both, alone, orphan):
        assert row["source"] == "10.0.0.1:4000"
        assert row["destination"] == "10.0.0.2:8080"
        assert row["service"] == "10.96.0.1:80"
        assert row["masqueraded"] == "192.168.0.1:5000"
        assert (row["source_flags"], row["destination_flags"]) == (2, 1)
        assert (row["source_identity"], row["destination_identity"]) == (2, 400)
        assert (row["source_endpoint"], row["destination_endpoint"]) == (0, 5)
        assert (row["service_id"], row["backend_id"]) == (7, 3)


def test_only_those_with_another_source() -> None:
    service = entry(CLIENT, VIP, goes=(CLIENT, BACKEND))
    masqueraded = entry(CLIENT, (0x01010101, 443), goes=(NODE, (0x01010101, 443)))
    assert len(told(service, masqueraded)) == 2
    assert [row["masqueraded"] for row in told(service, masqueraded, translated=True)] == ["192.168.0.1:5000"]
    assert told() == []
