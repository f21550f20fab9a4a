"""Collecting the connection table: the vectorised answers against a naive reading of the same rules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from axoneme.core.datapath.abi import CONNECTION, TICK_SHIFT, TUPLE, ConnectionFlag, EventType
from axoneme.core.datapath.conntrack import (
    Timeouts,
    close_events,
    collect,
    connection_numbers,
    ends_of,
    expired_mask,
    sampled,
    ticks,
)
from axoneme.core.datapath.maps import Map, MapKind, MapSpec
from axoneme.core.datapath.syscall import SyscallKernel
from axoneme.core.testing.fake_kernel import FakeKernel

TIMEOUTS = Timeouts(tcp=100.0, tcp_opening=30.0, tcp_closing=5.0, other=20.0)
SECOND = 1e9 / (1 << TICK_SHIFT)
FIN, SYN, RST = 1, 2, 4

words = st.integers(0, 3)
ports = st.integers(0, 3)


def name_of(source: Any, destination: Any, protocol: int) -> tuple[Any, ...]:
    """Of a connection, whichever way round it is told."""
    return (frozenset([source, destination]), protocol)


@frozen(kw_only=True)
class Entry:
    """One direction, as a test draws it."""

    source: tuple[int, int]
    destination: tuple[int, int]
    protocol: int
    idle: int
    packets: int
    sent: int
    seen: int
    reply: bool
    closed: bool

    @property
    def connection(self) -> tuple[Any, ...]:
        return name_of(self.source, self.destination, self.protocol)

    def key(self, family: int) -> dict[str, Any]:
        pad = () if family == 4 else (0x20010DB8, 0, 0)
        (saddr, sport), (daddr, dport) = self.source, self.destination
        return {
            "saddr": {"a": (*pad, saddr)}, "daddr": {"a": (*pad, daddr)},
            "sport": sport, "dport": dport, "protocol": self.protocol,
        }  # fmt: skip

    def value(self, now: int) -> dict[str, Any]:
        return {
            "last_seen": (now - self.idle) & 0xFFFFFFFF, "packets": self.packets, "bytes": self.packets * 100,
            "tcp_sent": self.sent, "tcp_seen": self.seen, "created": 7, "source_identity": 300,
            "flags": (ConnectionFlag.REPLY if self.reply else 0) | (ConnectionFlag.CLOSED if self.closed else 0),
        }  # fmt: skip


@st.composite
def tables(draw: st.DrawFn) -> list[Entry]:
    """Connections with one direction or both; each tuple once."""
    ends = st.tuples(words, ports)
    found: dict[tuple[Any, ...], Entry] = {}
    for _ in range(draw(st.integers(0, 12))):
        source, destination = draw(ends), draw(ends)
        protocol = draw(st.sampled_from([6, 17, 1]))
        closed = draw(st.booleans())
        reply = draw(st.booleans())
        if source == destination or name_of(source, destination, protocol) in found:
            continue
        for turned in draw(st.sampled_from([(False,), (True,), (False, True)])):
            entry = Entry(
                source=destination if turned else source, destination=source if turned else destination,
                protocol=protocol, idle=draw(st.integers(-3, int(130 * SECOND))), packets=draw(st.integers(0, 2)),
                sent=draw(st.integers(0, 7)), seen=draw(st.integers(0, 7)), reply=reply ^ turned, closed=closed,
            )  # fmt: skip
            found[(*name_of(source, destination, protocol), turned)] = entry
        found[name_of(source, destination, protocol)] = entry
    return [entry for key, entry in found.items() if len(key) == 3]


def arrays(entries: list[Entry], family: int, now: int) -> tuple[Any, Any]:
    keys = TUPLE[family].array([entry.key(family) for entry in entries])
    return keys, CONNECTION[family].array([entry.value(now) for entry in entries])


def naive_expired(entries: list[Entry]) -> set[tuple[Any, ...]]:
    """Connections that are over, one by one, in words rather than arrays."""
    connections = defaultdict(list)
    for entry in entries:
        connections[entry.connection].append(entry)
    over = set()
    for name, directions in connections.items():
        idle = max(0, min(entry.idle for entry in directions)) * (1 << TICK_SHIFT) / 1e9
        answered = len(directions) == 2 and all(entry.packets for entry in directions)
        good_bye = any(
            (entry.sent & FIN and entry.seen & FIN) or (entry.sent | entry.seen) & RST for entry in directions
        )
        if directions[0].protocol != 6:
            limit = TIMEOUTS.other
        elif good_bye:
            limit = TIMEOUTS.tcp_closing
        else:
            limit = TIMEOUTS.tcp if answered else TIMEOUTS.tcp_opening
        if idle > limit:
            over.add(name)
    return over


@given(entries=tables(), family=st.sampled_from([4, 6]), now=st.integers(0, 0xFFFFFFFF))
def test_what_expires(entries: list[Entry], family: int, now: int) -> None:
    """For every present time, so also when the clock of entries has begun anew since."""
    keys, values = arrays(entries, family, now)
    mask = expired_mask(keys, values, TIMEOUTS, now)
    over = naive_expired(entries)
    assert mask.tolist() == [entry.connection in over for entry in entries]


@given(entries=tables(), family=st.sampled_from([4, 6]))
def test_what_is_told_of_it(entries: list[Entry], family: int) -> None:
    keys, values = arrays(entries, family, 1000)
    events = close_events(keys, values, 5_000, family)
    asked = [entry for entry in entries if not entry.reply and not entry.closed]
    told = {(event["saddr"].tolist()[3], event["sport"], event["daddr"].tolist()[3], event["dport"], event["protocol"]): event
            for event in events}  # fmt: skip
    assert len(events) == len(told) == len(asked)
    for entry in asked:
        event = told[(*entry.source, *entry.destination, entry.protocol)]
        assert (event["type"], event["family"], event["time"]) == (EventType.CLOSE, family, 5_000)
        assert (event["packets"], event["bytes"]) == (entry.packets, entry.packets * 100)
        replies = [e for e in entries if e.connection == entry.connection and e.reply]
        assert event["reply_packets"] == sum(e.packets for e in replies)
        assert event["reply_bytes"] == sum(e.packets * 100 for e in replies)
        assert event["tcp_flags"] == entry.sent | entry.seen
        prefix = [0, 0, 0xFFFF] if family == 4 else [0x20010DB8, 0, 0]
        assert event["saddr"].tolist()[:3] == prefix


@given(entries=tables(), family=st.sampled_from([4, 6]))
def test_both_directions_share_a_number_and_no_others(entries: list[Entry], family: int) -> None:
    keys, _ = arrays(entries, family, 0)
    if len(keys):
        names: dict[tuple[Any, ...], int] = {}
        for entry, number in zip(entries, connection_numbers(keys).tolist(), strict=True):
            assert names.setdefault(entry.connection, number) == number
        assert len(set(names.values())) == len(names)


@given(entries=tables(), family=st.sampled_from([4, 6]), now=st.integers(0, 0xFFFFFFFF))
def test_what_is_sampled(entries: list[Entry], family: int, now: int) -> None:
    """What began before a moment, has not ended, and had a packet after it in either direction."""
    keys, values = arrays(entries, family, now)
    interval = int(20 * SECOND)
    values["created"] = [(now - interval - (entry.packets - 1)) & 0xFFFFFFFF for entry in entries]
    found = sampled(keys, values, (now - interval) & 0xFFFFFFFF)
    active = {entry.connection for entry in entries if entry.idle < interval}
    assert found.tolist() == [
        number
        for number, entry in enumerate(entries)
        if entry.connection in active and not entry.reply and not entry.closed and entry.packets
    ]


def test_an_empty_table_is_no_trouble() -> None:
    keys, values = arrays([], 4, 0)
    assert expired_mask(keys, values, TIMEOUTS, 0).tolist() == []
    assert len(close_events(keys, values, 0, 4)) == 0


def test_ticks_are_the_clocks() -> None:
    assert ticks((1 << TICK_SHIFT) * 5 + 1) == 5
    assert ticks(1 << (32 + TICK_SHIFT)) == 0
    assert abs(ticks() - ticks()) <= 1


# On a real table.


@pytest.fixture(params=[4, 6])
def table(request: pytest.FixtureRequest, running_kernel: SyscallKernel) -> Iterator[tuple[int, Map]]:
    family = request.param
    spec = MapSpec(f"connections{family}", MapKind.LRU_HASH, TUPLE[family], CONNECTION[family], 4096)
    with Map.create(running_kernel, spec) as made:
        yield family, made


def entry(number: int, *, reply: bool = False, **more: Any) -> Entry:
    ends = ((1, number), (2, 80))
    fields: dict[str, Any] = {
        "source": ends[reply], "destination": ends[not reply], "protocol": 6, "idle": 0, "packets": 1, "sent": SYN,
        "seen": SYN, "reply": reply, "closed": False,
    }  # fmt: skip
    return Entry(**fields | more)


@pytest.mark.kernel
def test_a_pass_over_a_real_table(table: tuple[int, Map]) -> None:
    family, connections = table
    now_ns = 10_000 * 10**9
    old = int(50 * SECOND)
    entries = [
        *(entry(n, idle=old, reply=reply) for n in range(500) for reply in (False, True)),  # answered: stays
        *(entry(1000 + n, idle=old) for n in range(500)),  # never answered: goes
        *(entry(2000 + n, idle=old, sent=SYN | RST, closed=True) for n in range(100)),  # told already: goes quietly
        entry(3000, protocol=17, idle=old),  # goes
        entry(3001, protocol=17, idle=old), entry(3001, protocol=17, idle=0, reply=True, packets=5),  # stays
    ]  # fmt: skip
    keys, values = arrays(entries, family, ticks(now_ns))
    connections.update_batch(keys, values)
    found = collect(connections, TIMEOUTS, now=now_ns, family=family)
    assert (found.expired, found.entries) == (601, 1002)
    assert len(connections.items()[0]) == 1002
    assert len(found.closed) == 501
    assert sorted(np.unique(found.closed["sport"]).tolist()) == [*range(1000, 1500), 3000]
    assert len(found.sampled) == 0
    since = now_ns - 51 * 10**9
    sampled = collect(connections, TIMEOUTS, now=now_ns, since=since, family=family).sampled
    assert sorted(sampled["sport"].tolist()) == [*range(500), 3001]
    assert set(sampled["type"].tolist()) == {EventType.UPDATE}
    assert sampled["reply_packets"][sampled["sport"] == 3001].tolist() == [5]
    again = collect(connections, TIMEOUTS, now=now_ns, family=family)
    assert (again.expired, len(again.closed)) == (0, 0)


@pytest.mark.kernel
def test_an_empty_real_table(table: tuple[int, Map]) -> None:
    family, connections = table
    found = collect(connections, TIMEOUTS, family=family)
    assert (found.expired, found.entries, len(found.closed)) == (0, 0, 0)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("at_once", [1, 3, 1024])
def test_what_goes_on_after_the_table_was_read_stays(
    family: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that comes to its ports again finds the former connection's entries, and opens the next one by them."""
    monkeypatch.setattr("axoneme.core.datapath.conntrack.AT_ONCE", at_once)
    now_ns, old = 10_000 * 10**9, int(500 * SECOND)
    spec = MapSpec("connections", MapKind.LRU_HASH, TUPLE[family], CONNECTION[family], 64)

    def both(number: int, idle: tuple[int, int] = (old, old)) -> list[Entry]:
        return [entry(number, idle=idle[reply], reply=reply) for reply in (False, True)]

    before = arrays([one for number in range(8) for one in both(number)], family, ticks(now_ns))
    again = arrays([*both(1, (0, 0)), *both(4, (0, old)), *both(6, (old, 0))], family, ticks(now_ns))
    with Map.create(FakeKernel(), spec) as connections:
        connections.update_batch(*before)
        read = connections.items()

        def read_before() -> Any:
            connections.update_batch(*again)
            connections.delete(entry(7, reply=True).key(family))
            return read

        monkeypatch.setattr(connections, "items", read_before)
        found = collect(connections, TIMEOUTS, now=now_ns, family=family)
        monkeypatch.undo()
        left = connections.items()[0]
    ports = np.where(left["sport"] == 80, left["dport"], left["sport"])
    assert sorted(ports.tolist()) == [1, 1, 4, 4, 6, 6]
    assert sorted(found.closed["sport"].tolist()) == [0, 2, 3, 5, 7]
    assert found.expired == 9


@pytest.mark.parametrize("family", [4, 6])
def test_the_directions_of_a_translated_connection_are_one(family: int) -> None:
    """The client knows a service, the server a client with another port: the two keys have only addresses of others."""
    client, service, server = (1, 40000), (9, 80), (2, 8080)
    seen = (1, 50000)  # by the server
    there = Entry(source=client, destination=service, protocol=6, idle=0, packets=2, sent=SYN, seen=SYN, reply=False, closed=False)  # fmt: skip
    back = Entry(source=server, destination=seen, protocol=6, idle=int(50 * SECOND), packets=3, sent=SYN, seen=SYN, reply=True, closed=False)  # fmt: skip
    now = ticks(10_000 * 10**9)
    keys, values = arrays([there, back], family, now)
    values["flags"] |= np.uint8(ConnectionFlag.NAT)
    values["nat_daddr"], values["nat_dport"] = keys["saddr"][::-1], keys["sport"][::-1]
    ends = ends_of(keys, values)
    assert len(set(connection_numbers(ends).tolist())) == 1
    assert not expired_mask(ends, values, TIMEOUTS, now).any()
    assert len(set(connection_numbers(keys).tolist())) == 2
    (event,) = close_events(ends, values, 5, family)
    assert (event["sport"], event["dport"], event["packets"], event["reply_packets"]) == (40000, 8080, 2, 3)
    untranslated = values.copy()
    untranslated["flags"] &= np.uint8(0xFF ^ ConnectionFlag.NAT)
    assert ends_of(keys, untranslated) is keys
