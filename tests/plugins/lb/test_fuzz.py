"""A hundred thousand packets, most of them broken: whatever becomes of one, it is never rewritten wrongly.

A rewrite is right when nothing changes but MACs, TTL, addresses, ports and checksums; when addresses change only as a service says;
and when every checksum is exactly as right or wrong afterwards as it was before. All of it is computed over arrays.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from service_world import UDP_PROTOCOL, Services, make_bench, populate, services_of

from axoneme.core.datapath.kernel import BpfError
from axoneme.core.datapath.testrun import SK_BUFF
from axoneme.core.testing.datapath import DatapathBench
from axoneme.core.testing.packets import (
    ACK,
    SCTP,
    SYN,
    TCP,
    UDP,
    Extension,
    Layer,
    fragments,
)

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

COUNT, LONGEST = 50_000, 256  # per family
REDIRECT, PASS, REFUSED = 7, 0xFFFFFFFF, 1000
SHORTEST = 14 + 40
Rows = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def bench() -> Iterator[DatapathBench]:
    with make_bench() as made:
        populate(made)
        yield made


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def s(request: pytest.FixtureRequest, bench: DatapathBench) -> Services:
    services = services_of(bench, request.param)
    services.backend(1, "b")
    services.service("vip", 7, 1)
    services.service("vip", 8, 1, port=53, protocol=UDP_PROTOCOL)
    services.service("vip", 9, 1, port=99, protocol=132)
    return services


def whole(s: Services) -> list[bytes]:
    """Well-formed packets of flows of both directions, errors about them, fragments, and headers that are seldom seen."""
    w = s.world
    there = [
        w.tcp("a", "vip", SYN),
        w.tcp("a", "vip", ACK),
        w.udp("a", "vip"),
        w.tcp("a", "c"),
        w.echo("a", "vip"),
    ]
    seen = [w.send(frame).frame for frame in there]
    back = [
        w.tcp("b", "a", ACK, sport=8080, dport=40000), w.udp("b", "a", sport=8080, dport=40000), w.tcp("c", "a", sport=80, dport=40000),
    ]  # fmt: skip
    got = [w.send(frame).frame for frame in back]
    errors = [
        w.error("b", "a", seen[0]),
        w.error("b", "a", seen[2]),
        w.error("a", "vip", got[1]),
        w.error("b", "a", seen[2][: 42 if w.family == 4 else 62]),
    ]
    big = w.frame("a", "vip", UDP(41000, 53), bytes(range(200)))
    return there + back + errors + fragments(big, 96) + odd(s)


def odd(s: Services) -> list[bytes]:
    w = s.world
    syn: tuple[Layer | bytes, ...] = (TCP(41001, 80, flags=SYN), b"odd")
    frames = [
        w.frame("a", "vip", TCP(0, 80, flags=0xFF), b""),
        w.frame("a", "vip", UDP(1, 53, checksum=0), b"x"),
        w.frame("a", "vip", UDP(2, 53, length=9999), b"xy"),
        w.frame("a", "vip", SCTP(41002, 99), bytes(12)),
        w.frame("a", "vip", TCP(41003, 80, flags=SYN, options=bytes([1] * 40)), b"z" * 101),
    ]
    if w.family == 4:
        return [*frames, w.frame("a", "vip", *syn, options=bytes([1] * 40)), w.frame("a", "vip", *syn, ttl=1)]
    chain = [Extension(kind, bytes(6)) for kind in (0, 60, 43, 60)]
    return [*frames, w.frame("a", "vip", chain[0], *syn), w.frame("a", "vip", *chain, *syn)]


def broken(rng: random.Random, frame: bytes) -> bytes:
    """Some bytes others, some missing, some too many; sometimes none of it."""
    data = bytearray(frame)
    for _ in range(rng.choice((0, 0, 1, 1, 2, 4))):
        data[rng.randrange(14, len(data))] = rng.choice((0, 1, 0xFF, 0x45, 80, rng.randrange(256)))
    cut = rng.random()
    if cut < 0.2:
        del data[rng.randrange(14, len(data)) :]
    elif cut < 0.3:
        data += rng.randbytes(rng.randrange(1, 20))
    return bytes(data[:LONGEST])


def sent(s: Services, frames: list[bytes]) -> tuple[Rows, Rows, Rows, Rows]:
    """All of them through the program: lengths, bytes before, bytes after, and what it returned."""
    bench = s.bench
    program, links = bench.program("from_workload").main, {name: bench.link(name) for name in "abc"}
    contexts = {name: SK_BUFF.pack(ifindex=index) for name, index in links.items()}
    macs = {bytes([2, 0, 0, 0, 0, number]): contexts[name] for number, name in enumerate("abc", 1)}
    run: Callable[..., Any] = bench.kernel.program_test_run

    def work() -> list[tuple[int, bytes]]:
        done = []
        for at, frame in enumerate(frames):
            try:
                result = run(program.fd, frame, context=macs[frame[6:12]])
            except BpfError:  # the kernel itself takes no frame without a whole IP header
                assert len(frame) < SHORTEST
                done.append((REFUSED, frame))
                continue
            done.append((result.retval, result.data))
            if at % 4096 == 0:
                bench.ring.read()
        return done

    done = bench.inside(work)
    lengths = np.array([len(frame) for frame in frames])
    before, after = (_padded(each) for each in (frames, [data for _, data in done]))
    assert [len(data) for _, data in done] == lengths.tolist()
    return lengths, before, after, np.array([value for value, _ in done])


def _padded(frames: list[bytes]) -> Rows:
    joined = b"".join(frame.ljust(LONGEST, b"\0") for frame in frames)
    return np.frombuffer(joined, np.uint8).reshape(len(frames), LONGEST)


def _sum(rows: Rows, mask: Rows) -> Rows:
    """Of the big-endian words, modulo 0xffff."""
    kept = np.where(mask, rows, 0).astype(np.uint32)
    result: Rows = (kept[:, ::2].sum(1) * 256 + kept[:, 1::2].sum(1)) % 0xFFFF
    return result


def _between(start: Rows | int, end: Rows | int) -> Rows:
    at = np.arange(LONGEST)
    return (at >= np.asarray(start).reshape(-1, 1)) & (at < np.asarray(end).reshape(-1, 1))


def _is_later(row: Rows) -> bool:
    """Whether a frame of IPv6 is a fragment that is not its datagram's first (RFC 8200 4.5)."""
    kind, at = int(row[20]), 54
    while kind in (0, 43, 51, 60) and at + 8 < LONGEST:
        size = (int(row[at + 1]) + 2) * 4 if kind == 51 else (int(row[at + 1]) + 1) * 8
        kind, at = int(row[at]), at + size
    return kind == 44 and at + 4 < LONGEST and bool(int(row[at + 2]) << 8 | int(row[at + 3]) & 0xF8)


def check(family: int, services: Services, before: Rows, after: Rows) -> int:
    """Asserts that what came out is right; returns how many packets were translated."""
    header = (before[:, 14] & 15).astype(int) * 4 if family == 4 else np.full(len(before), 40)
    protocol = before[:, 23] if family == 4 else before[:, 20]
    addresses = (26, 34) if family == 4 else (22, 54)
    transport = 14 + header
    icmp, later = protocol == (1 if family == 4 else 58), np.zeros(len(before), bool)
    if family == 4:
        later = ((before[:, 20] & 0x1F).astype(int) * 256 + before[:, 21]) > 0
    else:
        later = np.array([_is_later(row) for row in before])
    changed = before != after
    # Nothing else.
    allowed = (
        _between(0, 12)
        | _between(*addresses)
        | (_between(22, 23) | _between(24, 26) if family == 4 else _between(21, 22))
    )
    assert not (changed & ~allowed)[later].any(), "a later fragment has no ports"
    plain = ~icmp & ~later & ((protocol == 6) | (protocol == 17))
    sum_at = transport + np.where(protocol == 6, 16, 6)
    ours = allowed | _between(transport, transport + 4) | _between(sum_at, sum_at + 2)
    wrong = (changed & ~ours)[plain]
    assert not wrong.any(), f"{before[plain][wrong.any(1)][0].tobytes().hex()}"
    # The sums.
    if family == 4:
        head = _between(14, transport)
        assert (_sum(before, head) == _sum(after, head)).all()
    body = _between(transport, LONGEST)
    covered = body | (_between(*addresses) & ~(icmp & (family == 4)).reshape(-1, 1))
    bare = (protocol == 17) & ~later & (before[np.arange(len(before)), sum_at.clip(0, LONGEST - 2)] == 0)
    bare &= before[np.arange(len(before)), (sum_at + 1).clip(0, LONGEST - 1)] == 0
    sctp = protocol == 132
    bare_sums = after[np.arange(len(after)), sum_at.clip(0, LONGEST - 2)][bare]
    assert not bare_sums.any(), "no checksum is none afterwards"
    same = _sum(before, covered) == _sum(after, covered)
    assert (same | later | bare | sctp).all(), f"{before[~(same | later | bare | sctp)][0].tobytes().hex()}"
    # The addresses.
    return _exchanged(services, before[:, slice(*addresses)], after[:, slice(*addresses)])


def _exchanged(services: Services, before: Rows, after: Rows) -> int:
    import ipaddress

    size = before.shape[1] // 2
    name = {key: ipaddress.ip_address(value).packed for key, value in services.world.addresses.items()}
    pairs = {
        (old.tobytes(), new.tobytes()) for old, new in zip(before, after, strict=True) if (old != new).any()
    }
    for old, new in pairs:
        source, target = (old[:size], new[:size]), (old[size:], new[size:])
        for was, now in (source, target):
            assert was == now or (was, now) in {(name["vip"], name["b"]), (name["b"], name["vip"])}, (
                was,
                now,
            )
    return int((before != after).any(1).sum())


def test_no_packet_is_rewritten_wrongly(s: Services) -> None:
    rng = random.Random(20260)
    templates = whole(s)
    frames = templates + [broken(rng, rng.choice(templates)) for _ in range(COUNT)]
    _, before, after, verdicts = sent(s, frames)
    gone_on = (verdicts == REDIRECT) | (verdicts == PASS)
    translated = check(s.world.family, s, before[gone_on], after[gone_on])
    assert translated > COUNT // 4
    assert (~gone_on).sum() > COUNT // 20
