"""What was written is read again, by time and type, with its names; old records give way."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from stored import SECOND, names, records

from axoneme.core.datapath.abi import EVENT, TICK_SHIFT, EventType
from axoneme.core.errors import LockedError
from axoneme.core.events.store import segment
from axoneme.core.events.store.codec import records_frame, records_of, to_wall_clock
from axoneme.core.events.store.frames import FrameKind, frames
from axoneme.core.events.store.journal import Names, journal_frames, names_of
from axoneme.core.events.store.reader import Damage, Stretch, scan
from axoneme.core.events.store.writer import EventStore, Limits

POLICY_DENIED = 133
#: A made-up now; the stores of these tests live in 2001.
NOW = 1_000_000_000 * SECOND


def store(folder: Path, limits: Limits | None = None, now: int = NOW) -> EventStore:
    return EventStore(folder, limits or Limits(), node="node-1", clock=lambda: now)


def times(found: list[Stretch]) -> list[int]:
    return [int(time) for stretch in found for time in stretch.records["time"]]


def test_records_come_back_with_what_their_numbers_meant(tmp_path: Path) -> None:
    with store(tmp_path) as opened:
        opened.append(records([NOW, NOW + 1]), names(), offset=0)
        opened.append(records([NOW + 2], EventType.DROP, reason=POLICY_DENIED), names(), offset=0)
        (first, second) = list(scan(tmp_path))  # while it is being written
        assert opened.written == 3
    assert list(map(len, (s.records for s in scan(tmp_path)))) == [2, 1]
    assert first.records.dtype == EVENT.dtype
    assert first.names.endpoints[7].uid == "prod/web"
    assert first.names.endpoints[7].labels == ("k8s:app=web",)
    assert str(first.names.endpoints[7].ipv4) == "10.0.0.1"
    assert first.names.endpoints[7].named_ports["http"].port == 8080
    assert 8 not in first.names.endpoints, "nothing mentions it"
    assert first.names.identities[300].labels[0] == "k8s:app=web"
    assert first.names.rules[99].describe() == "prod/p spec.egress[0] (p.yaml:4)"
    assert first.names.reasons == {}
    assert second.names.reasons[POLICY_DENIED].text == "Policy denied"
    assert second.node == "node-1"
    assert stat.S_IMODE(next(tmp_path.glob("*.events")).stat().st_mode) == 0o600


def test_concatenated_records_are_what_they_were(tmp_path: Path) -> None:
    """np.concatenate makes fields in network order native: the bytes are others, the values are not."""
    several = np.concatenate([records([NOW], dport=80), records([NOW + 1], dport=443)])
    with store(tmp_path) as opened:
        opened.append(several, names(), offset=0)
    (stretch,) = scan(tmp_path)
    assert stretch.records["dport"].tolist() == [80, 443]


def test_a_name_is_written_once_in_a_segment_and_again_when_it_means_something_else(tmp_path: Path) -> None:
    with store(tmp_path) as opened:
        for moment, name in enumerate(("web", "web", "api")):
            opened.append(records([NOW + moment]), names(name), offset=0)
    (path,) = segment.paths(tmp_path)
    kinds = [frame.kind for _, frame in frames(segment.read(path))]
    head, journal, written, foot = FrameKind.HEAD, FrameKind.JOURNAL, FrameKind.RECORDS, FrameKind.FOOT
    assert kinds == [head, journal, written, written, journal, written, foot]
    assert [s.names.endpoints[7].name for s in scan(tmp_path)] == ["web", "web", "api"]


def test_times_and_types_choose(tmp_path: Path) -> None:
    with store(tmp_path) as opened:
        for hour in range(3):
            base = NOW + hour * 3600 * SECOND
            opened.append(records([base, base + 1]), names(), offset=0)
            opened.append(records([base + 2], EventType.DROP), names(), offset=0)
            opened._complete()
    hour = 3600 * SECOND
    assert times(list(scan(tmp_path))) == [NOW + h * hour + n for h in range(3) for n in range(3)]
    assert times(list(scan(tmp_path, since=NOW + 1, until=NOW + hour))) == [NOW + 1, NOW + 2, NOW + hour]
    assert times(list(scan(tmp_path, types=[EventType.DROP], since=NOW + hour))) == [
        NOW + hour + 2,
        NOW + 2 * hour + 2,
    ]
    assert times(list(scan(tmp_path, types=[EventType.UPDATE]))) == []
    with mock.patch.object(segment, "read", wraps=segment.read) as read:
        list(scan(tmp_path, since=NOW + 2 * hour))
    assert read.call_count == 1, "what is over is not even read"
    assert list(scan(tmp_path / "nothing")) == []


def test_the_time_of_day_and_the_age_of_a_connection() -> None:
    monotonic = 5_000 * SECOND
    made = records([monotonic])
    made["created"] = (monotonic - 100 * SECOND) >> TICK_SHIFT
    moved = to_wall_clock(made, NOW)
    assert moved["time"][0] == NOW + monotonic
    before = (made["time"] >> TICK_SHIFT).astype(np.uint32) - made["created"]
    after = (moved["time"] >> TICK_SHIFT).astype(np.uint32) - moved["created"]
    assert before == after
    assert made["time"][0] == monotonic, "the ring's record is everybody's"


@settings(max_examples=30, deadline=None)
@given(
    arrays.arrays(
        EVENT.dtype, st.integers(1, 40), elements=arrays.from_dtype(EVENT.dtype), fill=st.nothing()
    ),
)
def test_every_record_survives(made: np.ndarray) -> None:
    made["time"] &= (1 << 62) - 1
    made["type"] = made["type"] % 5 + 1
    assert (records_of(records_frame(made), EVENT.dtype) == made).all()


_WORD = st.text(max_size=8)


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(st.integers(1, 65535), st.tuples(_WORD, _WORD, st.lists(_WORD, max_size=3)), max_size=5)
)
def test_every_name_survives(given_: dict[int, tuple[str, str, list[str]]]) -> None:
    from axoneme.core.workloads.endpoints import Endpoint

    rows = {
        number: Endpoint(id=number, name=name, namespace=space, labels=tuple(labels))
        for number, (name, space, labels) in given_.items()
    }
    found = Names()
    for frame in journal_frames(Names(endpoints=rows).rows()):
        found = found.with_(names_of(frame))
    assert found.endpoints == rows


def test_a_layout_of_yesterday_is_read_into_todays(tmp_path: Path) -> None:
    old = np.dtype(
        [(name, EVENT.dtype[name]) for name in EVENT.dtype.names if name != "service"] + [("gone", "<u4")]
    )
    made = np.zeros(3, old)
    made["time"], made["type"], made["dport"], made["gone"] = NOW, EventType.NEW, 443, 5
    head = segment.Head(old, "node-0")
    frame = records_frame(made)
    segment.path_of(tmp_path, 1).write_bytes(head.frame().pack() + frame.pack())
    (stretch,) = scan(tmp_path)
    assert stretch.records.dtype == EVENT.dtype
    assert stretch.records["dport"].tolist() == [443] * 3
    assert stretch.records["service"].tolist() == [0] * 3


# Limits


def test_the_oldest_give_way_to_the_size(tmp_path: Path) -> None:
    limits = Limits(size=1 << 20)
    noise = np.random.default_rng(1)
    with store(tmp_path, limits) as opened:
        for moment in range(60):
            made = records(np.arange(1000, dtype=np.uint64) + (NOW + moment * SECOND))
            made["bytes"] = noise.integers(0, 1 << 63, 1000)
            made["packets"] = noise.integers(0, 1 << 63, 1000)
            made["reply_bytes"] = noise.integers(0, 1 << 63, 1000)
            opened.append(made, names(), offset=0)
            used = sum(path.stat().st_blocks * 512 for path in tmp_path.glob("*.events"))
            assert max(used, opened.size) <= limits.size
        assert opened.size > limits.size * 0.85
        assert opened.segments > 8
        assert opened.oldest > NOW
        found = times(list(scan(tmp_path)))
    assert found == list(range(found[0], found[0] + 1000)) + found[1000:]
    assert found[-1] == NOW + 59 * SECOND + 999
    assert found == sorted(found)


def test_the_oldest_give_way_to_the_age(tmp_path: Path) -> None:
    limits = Limits(age=3600.0)
    with store(tmp_path, limits) as opened:
        opened.append(records([NOW - 4000 * SECOND]), names(), offset=0)
        opened._complete()
        opened.append(records([NOW - 10 * SECOND]), names(), offset=0)
    assert times(list(scan(tmp_path))) == [NOW - 10 * SECOND]
    with store(tmp_path, limits, now=NOW + 3600 * SECOND) as opened:
        opened.expire()
        assert (opened.segments, opened.size, opened.oldest) == (0, 0, 0)
    assert list(scan(tmp_path)) == []


def test_a_restart_goes_on(tmp_path: Path) -> None:
    for start in range(3):
        with store(tmp_path) as opened:
            assert opened.segments == start
            opened.append(records([NOW + start]), names(), offset=0)
    assert times(list(scan(tmp_path))) == [NOW, NOW + 1, NOW + 2]
    with store(tmp_path) as opened:
        assert opened.segments == 3, "a start that has nothing to write makes no file"


def test_two_writers_are_one_too_many(tmp_path: Path) -> None:
    with store(tmp_path):
        with pytest.raises(LockedError, match="another process writes"):
            store(tmp_path)
        assert list(scan(tmp_path, damage=(damage := Damage()))) == []
        assert damage == Damage()
    store(tmp_path).close()
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0
    else:
        store(tmp_path).close()
        os._exit(0)
