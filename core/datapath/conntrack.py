"""The connection table from Python: what expired is collected, vectorised; what was evicted is counted.

The kernel's table has an entry per direction. Here the two are joined again: a connection lives as long as either
direction does, and how long that is depends on whether it was answered and, for TCP, on its state.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from attrs import Factory, evolve, field, frozen

from axoneme.core.datapath.abi import EVENT, TICK_SHIFT, ConnectionFlag, EventType
from axoneme.core.datapath.maps import Map

_TCP = 6

Rows = np.ndarray[Any, Any]

#: The part of a table's limit from which on time-outs shrink, and the seconds below which they do not.
PRESSURE = 0.6
PATIENCE = 2.0

#: Entries that are looked at once more before they are deleted.
AT_ONCE = 1024
#: Rows that are mixed at once: so few that what that needs stays in a cache.
_BLOCK = 8192


@frozen(kw_only=True)
class Timeouts:
    """How long an idle connection is remembered, in seconds.

    Defaults as Cilium's: TCP 8000 s when established, 60 s before an answer, 10 s after the close; others 60 s.
    """

    tcp: float = field(default=8000.0, metadata={"help": "established TCP"})
    tcp_opening: float = field(default=60.0, metadata={"help": "TCP before the answer"})
    tcp_closing: float = field(default=10.0, metadata={"help": "TCP after FIN from both sides, or RST"})
    other: float = field(default=60.0, metadata={"help": "UDP, SCTP, ICMP"})
    other_opening: float = field(
        default=Factory(lambda self: self.other, takes_self=True),
        metadata={"help": "the same, without an answer"},
    )

    def under_pressure(self, entries: int, limit: int) -> Timeouts:
        """As a table fills, what is not answered, and what is over, goes sooner.

        From `PRESSURE` of the limit on, these time-outs shrink in a straight line, down to `PATIENCE` at the limit, as those of
        adaptive.start and adaptive.end in pf.conf(5) do. Connections that were answered keep theirs: unlike pf, which
        shortens all, so that a flood of questions drives out nobody.
        """
        ease = min(max((limit - entries) / ((1 - PRESSURE) * limit), 0.0), 1.0) if limit else 0.0

        def shorter(seconds: float) -> float:
            return min(seconds, max(PATIENCE, ease * seconds))

        return evolve(
            self,
            tcp_opening=shorter(self.tcp_opening),
            tcp_closing=shorter(self.tcp_closing),
            other_opening=shorter(self.other_opening),
        )


@frozen(kw_only=True)
class Collection:
    """What one pass found.

    :param entries: entries left in the table (two per connection).
    :param expired: entries deleted.
    :param closed: `EVENT` records of connections that ended by silence and were not reported by the kernel.
    :param sampled: `EVENT` records of connections that go on, if samples were asked for.
    """

    entries: int
    expired: int
    closed: Rows
    sampled: Rows


def ticks(monotonic_ns: int | None = None) -> int:
    """The present time as connection entries have it."""
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) if monotonic_ns is None else monotonic_ns
    return (now >> TICK_SHIFT) & 0xFFFFFFFF


def collect(
    table: Map,
    timeouts: Timeouts,
    *,
    family: int,
    limit: int | None = None,
    now: int | None = None,
    since: int | None = None,
) -> Collection:
    """One pass over a table: deletes what expired.

    :param limit: entries that it is meant for; near it time-outs are shorter (`Timeouts.under_pressure`).
    :param now: monotonic time in ns.
    :param since: samples connections that are older than this and had packets since; monotonic ns, None for no samples.
    """
    now_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC) if now is None else now
    keys, values = table.items()
    ends = ends_of(keys, values)
    if limit is not None:
        timeouts = timeouts.under_pressure(len(keys), limit)
    expired = expired_mask(ends, values, timeouts, ticks(now_ns))
    deleted = _delete_idle(table, keys, values, ends, expired)
    closed = close_events(ends[expired], values[expired], now_ns, family)
    chosen = np.zeros(0, np.intp) if since is None else sampled(ends, values, ticks(since))
    samples = _reports(ends, values, chosen[~expired[chosen]], EventType.UPDATE, now_ns, family)
    return Collection(entries=len(keys) - deleted, expired=deleted, closed=closed, sampled=samples)


def _delete_idle(table: Map, keys: Rows, values: Rows, ends: Rows, expired: Rows) -> int:
    """Deletes what expired, and says how many entries; takes out of the mask what goes on.

    The whole table was read and thought over meanwhile, and a client may have opened a connection by the entries of the
    one before. So each is looked at once more just before it goes, a thousand at a time, both directions together: whoever
    had a packet since stays. What is left is the moment between the two, of about a millisecond.
    """
    chosen = np.flatnonzero(expired)
    numbers = connection_numbers(ends[chosen])
    order = np.argsort(numbers)
    chosen, numbers = chosen[order], numbers[order]
    start, deleted = 0, 0
    while start < len(chosen):
        end = min(start + AT_ONCE, len(chosen))
        while end < len(chosen) and numbers[end] == numbers[end - 1]:
            end += 1
        here, its = chosen[start:end], numbers[start:end]
        there, present = table.lookup_each(keys[here])
        touched = there & (present["last_seen"] != values["last_seen"][here])
        stays = np.isin(its, its[touched])
        expired[here[stays]] = False
        deleted += table.delete_batch(keys[here[there & ~stays]])
        start = end
    return deleted


def flush(table: Map, family: int, *, translated: bool = False) -> Collection:
    """Deletes all entries, or those of connections whose packets go on with other addresses or ports."""
    keys, values = table.items()
    ends = ends_of(keys, values)
    if translated and len(keys):
        numbers = connection_numbers(ends)
        chosen = np.isin(numbers, numbers[(values["flags"] & ConnectionFlag.NAT) > 0])
    else:
        chosen = np.ones(len(keys), np.bool_)
    closed = close_events(ends[chosen], values[chosen], time.clock_gettime_ns(time.CLOCK_MONOTONIC), family)
    deleted = table.delete_batch(keys[chosen]) if chosen.any() else 0
    return Collection(entries=len(keys) - deleted, expired=deleted, closed=closed, sampled=closed[:0])


def ends_of(keys: Rows, values: Rows) -> Rows:
    """The keys with the receiver's own address in place of the one that the sender knows, where they differ.

    So the two directions of a translated connection are each other's reverse, like those of any other.
    """
    translated = (values["flags"] & ConnectionFlag.NAT) > 0
    if not translated.any():
        return keys
    ends = keys.copy()
    ends["daddr"][translated] = values["nat_daddr"][translated]
    ends["dport"][translated] = values["nat_dport"][translated]
    return ends


def connection_numbers(keys: Rows) -> Rows:
    """A u64 per entry that both directions of a connection share.

    A sum of the mixed ends and not a comparison of them, so that it needs no branch per row. Two connections share one
    with a probability of 2^-64 per pair; such a pair would merely expire together.
    """
    numbers = np.empty(len(keys), np.uint64)
    for start in range(0, len(keys), _BLOCK):
        numbers[start : start + _BLOCK] = _numbers(keys[start : start + _BLOCK])
    return numbers


def _numbers(keys: Rows) -> Rows:
    words = (
        np.ascontiguousarray(keys).view(np.uint8).reshape(len(keys), keys.dtype.itemsize).astype(np.uint64)
    )
    address = (words.shape[1] - 8) // 2
    source = np.concatenate([words[:, :address], words[:, 2 * address : 2 * address + 2]], axis=1)
    destination = np.concatenate(
        [words[:, address : 2 * address], words[:, 2 * address + 2 : 2 * address + 4]], axis=1
    )
    numbers: Rows = (
        _mix(source) + _mix(destination) + words[:, 2 * address + 4] * np.uint64(0x9E3779B97F4A7C15)
    )
    return numbers


def _mix(columns: Rows) -> Rows:
    """FNV-1a over the columns, with a final avalanche (the constants of splitmix64)."""
    with np.errstate(over="ignore"):
        mixed = np.full(len(columns), 0xCBF29CE484222325, np.uint64)
        for column in columns.T:
            mixed = (mixed ^ column) * np.uint64(0x100000001B3)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))


def expired_mask(keys: Rows, values: Rows, timeouts: Timeouts, now: int) -> Rows:
    """Which entries belong to connections that have been idle for too long; bool, one per entry."""
    return remaining(keys, values, timeouts, now) < 0


def remaining(keys: Rows, values: Rows, timeouts: Timeouts, now: int) -> Rows:
    """Seconds until each entry's connection has been idle for too long; below zero, it has been. float, one per entry."""
    if not len(keys):
        return np.zeros(0)
    numbers = connection_numbers(keys)
    order = np.argsort(numbers)
    ordered = numbers[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    sizes = np.diff(np.append(starts, len(order)))
    # Entries are touched while they are read: an age below zero is zero.
    age = np.maximum((np.uint32(now) - values["last_seen"]).astype(np.uint32).view(np.int32), 0)
    idle = np.minimum.reduceat(age[order], starts) * (
        (1 << TICK_SHIFT) / 1e9
    )  # a float: seconds, and no overflow
    closing = np.bitwise_or.reduceat(_closing(values)[order], starts)
    answered = np.minimum.reduceat(values["packets"][order], starts) > 0
    answered &= sizes > 1
    tcp = keys["protocol"][order][starts] == _TCP
    limit = np.select(
        [tcp & closing, tcp & answered, tcp, answered],
        [timeouts.tcp_closing, timeouts.tcp, timeouts.tcp_opening, timeouts.other],
        timeouts.other_opening,
    )
    result = np.empty(len(keys))
    result[order] = np.repeat(limit - idle, sizes)
    return result


def _closing(values: Rows) -> Rows:
    both = (values["tcp_sent"] & values["tcp_seen"] & 1) > 0
    reset = ((values["tcp_sent"] | values["tcp_seen"]) & 4) > 0
    result: Rows = np.asarray(both | reset)
    return result


def _asked(values: Rows) -> Rows:
    """The entries of the asking direction, of connections that have not been reported as closed; a mask."""
    over_or_reply = ConnectionFlag.REPLY | ConnectionFlag.CLOSED
    return np.asarray((values["flags"] & over_or_reply) == 0)


def close_events(keys: Rows, values: Rows, now_ns: int, family: int) -> Rows:
    """A `close` record for each connection among the entries that has not been reported as closed."""
    return _reports(keys, values, np.flatnonzero(_asked(values)), EventType.CLOSE, now_ns, family)


def sampled(keys: Rows, values: Rows, since: int) -> Rows:
    """Which entries stand for connections that began before a tick and had a packet, either way, after it; indexes."""
    asked = np.flatnonzero(_asked(values) & (_after(values["created"], since) <= 0))
    active = _after(values["last_seen"], since) > 0
    if active[asked].all():
        return asked
    # Where only the other direction spoke, it is that entry which knows. Nothing more than a set of numbers is needed.
    numbers = connection_numbers(keys)
    return asked[np.isin(numbers[asked], numbers[active])]


def _after(moments: Rows, since: int) -> Rows:
    """How many ticks each moment is later than `since`; the clock wraps."""
    return np.asarray((moments - np.uint32(since)).astype(np.uint32).view(np.int32))


def _reports(keys: Rows, values: Rows, chosen: Rows, kind: EventType, now_ns: int, family: int) -> Rows:
    """A record about the connections of these entries of the asking direction, with the counters of both directions."""
    events = np.zeros(len(chosen), EVENT.dtype)
    if not len(events):
        return events
    key, value = keys[chosen], values[chosen]
    events["time"], events["type"], events["family"] = now_ns, kind, family
    events["protocol"], events["sport"], events["dport"] = key["protocol"], key["sport"], key["dport"]
    for name in ("saddr", "daddr"):
        events[name] = _wide(key[name]["a"], family)
    for name in (
        "source_identity", "destination_identity", "source_endpoint", "destination_endpoint",
        "egress_rule", "ingress_rule", "created", "packets", "bytes", "auth", "next_hop",
        "service",
    ):  # fmt: skip
        events[name] = value[name]
    events["tcp_flags"] = value["tcp_sent"] | value["tcp_seen"]
    _add_replies(events, connection_numbers(key), keys, values)
    return events


def _add_replies(events: Rows, numbers: Rows, keys: Rows, values: Rows) -> None:
    replies = (values["flags"] & ConnectionFlag.REPLY) > 0
    theirs = connection_numbers(keys[replies])
    if not len(theirs):
        return
    order = np.argsort(theirs)
    place = np.minimum(np.searchsorted(theirs[order], numbers), len(theirs) - 1)
    match = theirs[order][place] == numbers
    for name in ("packets", "bytes"):
        events[f"reply_{name}"] = np.where(match, values[replies][name][order][place], 0)


def _wide(words: Rows, family: int) -> Rows:
    """IPv4 addresses in their IPv4-mapped form (RFC 4291 2.5.5.2), as in every event record."""
    if family == 6:
        return words
    wide = np.zeros((len(words), 4), words.dtype)
    wide[:, 2] = 0xFFFF
    wide[:, 3] = words[:, 0]
    return wide
