"""Reads a store, while it is written or long afterwards, without disturbing anybody."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from attrs import define, frozen

from axoneme.core.datapath.abi import EventType
from axoneme.core.errors import AxonemeError, Where
from axoneme.core.events.store import segment
from axoneme.core.events.store.codec import DamagedError, Records, records_of, types_mask
from axoneme.core.events.store.frames import Frame, FrameKind, frames
from axoneme.core.events.store.journal import Names, names_of
from axoneme.core.events.store.segment import Head

#: What a store keeps of everything that programs report.
KEPT = (EventType.DROP, EventType.NEW, EventType.CLOSE, EventType.UPDATE)


@frozen
class Stretch:
    """Records that were written together, in the order of their times.

    :param records: of `axoneme.core.datapath.abi.EVENT`, with `time` in ns since 1970; not to be changed.
    :param names: what their numbers stood for.
    :param node: where they were written.
    """

    records: Records
    names: Names
    node: str


@define
class Damage:
    """What could not be read.

    :ivar frames: frames whose content is not what they say.
    :ivar segments: files without a head that can be read, and files that cannot be opened.
    """

    frames: int = 0
    segments: int = 0


def scan(
    folder: Path,
    since: int | None = None,
    until: int | None = None,
    types: Iterable[EventType] = KEPT,
    *,
    damage: Damage | None = None,
) -> Iterator[Stretch]:
    """The records of these types from `since` to `until` (ns since 1970, both included), oldest segment first.

    Segments and frames outside of that time are skipped unread. Memory is that of one segment (16 MiB at most, unless
    the limits of its writer were larger).

    :param damage: counts what could not be read; that is left out.
    :raises AxonemeError: when the folder cannot be read at all. A folder that is not there is an empty store.
    """
    low, high = since if since is not None else 0, until if until is not None else 1 << 63
    wanted, damage = types_mask(types), damage if damage is not None else Damage()
    for path in _paths(folder):
        try:
            known = segment.look(path)
            if known is not None and not _concerns(known.foot, low, high, wanted):
                continue
            data = segment.read(path)
        except FileNotFoundError:
            continue  # it was the oldest, and its time had come
        except OSError:
            damage.segments += 1
            continue
        yield from _stretches(data, low, high, wanted, damage)


def _paths(folder: Path) -> list[Path]:
    try:
        return segment.paths(folder)
    except OSError as error:
        raise AxonemeError(
            f"cannot read the event store: {error.strerror}", where=Where(str(folder)), hint="it takes root"
        ) from error


def _concerns(frame: Frame, low: int, high: int, wanted: int) -> bool:
    return bool(frame.types & wanted) and frame.first <= high and frame.last >= low


def _stretches(data: bytes, low: int, high: int, wanted: int, damage: Damage) -> Iterator[Stretch]:
    head: Head | None = None
    names = Names()
    for _, frame in frames(data):
        try:
            if frame.kind is FrameKind.HEAD:
                head = Head.of(frame)
            elif frame.kind is FrameKind.JOURNAL:
                names = names.with_(names_of(frame))
            elif frame.kind is FrameKind.RECORDS and head and _concerns(frame, low, high, wanted):
                found = _chosen(records_of(frame, head.layout), low, high, wanted)
                if len(found):
                    yield Stretch(found, names, head.node)
        except DamagedError:
            damage.frames += 1
    if head is None and data:
        damage.segments += 1


def _chosen(records: Records, low: int, high: int, wanted: int) -> Records:
    times = records["time"]
    mask = (times >= np.uint64(max(low, 0))) & (times <= np.uint64(high))
    mask &= (np.uint64(wanted) >> records["type"].astype(np.uint64)) & np.uint64(1) != 0
    return records if mask.all() else records[mask]


def ago(seconds: float) -> int:
    """The time so many seconds ago, for `since`."""
    return time.time_ns() - int(seconds * 1e9)
