"""Frames: how pieces of data stand in a segment so that damage is seen, and costs only the piece that it hit.

A frame is a header of 48 bytes (little endian) and a payload. The header has a checksum of its own: the length in it can be
trusted, and a reader that met rubbish finds the next frame by looking for one whose header is right.
"""

from __future__ import annotations

import enum
import struct
import zlib
from collections.abc import Iterator
from typing import Final

from attrs import frozen

_MAGIC: Final = b"\xa0AX\x01"
#: magic, kind, pad, payload bytes, payload bytes unpacked, records, mask of types, first and last time (ns), checksums of
#: payload and header.
_HEADER: Final = struct.Struct("<4sBB2xIIIIqqII")
HEADER_SIZE: Final = _HEADER.size
#: The largest payload, packed or not: what a reader has to be ready to hold.
MAX_PAYLOAD: Final = 16 << 20


class FrameKind(enum.IntEnum):
    #: The first of a segment: JSON, see `segment.Head`.
    HEAD = 1
    #: JSON, see `journal`.
    JOURNAL = 2
    #: Event records, see `codec`.
    RECORDS = 3
    #: The last of a segment that is complete: counts and times of all its records, no payload.
    FOOT = 4


_KINDS: Final = frozenset(int(kind) for kind in FrameKind)


@frozen
class Frame:
    """One frame.

    :param size: of the payload before it was packed.
    :param types: a bit (1 << type) for each type of event in it.
    :param first: time of the earliest record, ns since 1970; `last` that of the latest.
    """

    kind: FrameKind
    payload: bytes = b""
    size: int = 0
    records: int = 0
    types: int = 0
    first: int = 0
    last: int = 0

    def pack(self) -> bytes:
        """Header and payload as they stand in the file."""
        head = _HEADER.pack(
            _MAGIC, self.kind, 0, len(self.payload), self.size, self.records, self.types, self.first, self.last,
            zlib.crc32(self.payload), 0,
        )  # fmt: skip
        return head[:-4] + zlib.crc32(head[:-4]).to_bytes(4, "little") + self.payload


def frames(data: bytes) -> Iterator[tuple[int, Frame]]:
    """The frames that are whole, each with the offset of its end. What is between and behind them is damaged or torn."""
    offset = 0
    while (offset := data.find(_MAGIC, offset)) >= 0:
        found = _unpack(data, offset)
        if found is None:
            offset += 1
            continue
        frame, end = found
        if frame is not None:
            yield end, frame
        offset = end


def _unpack(data: bytes, offset: int) -> tuple[Frame | None, int] | None:
    """The frame at an offset and its end; None for its payload when only that is damaged, None for no frame at all."""
    head = data[offset : offset + HEADER_SIZE]
    if len(head) < HEADER_SIZE or zlib.crc32(head[:-4]).to_bytes(4, "little") != head[-4:]:
        return None
    _, kind, _, length, size, records, types, first, last, check, _ = _HEADER.unpack(head)
    end = offset + HEADER_SIZE + length
    if end > len(data) or max(length, size) > MAX_PAYLOAD or kind not in _KINDS:
        return None
    payload = data[offset + HEADER_SIZE : end]
    if zlib.crc32(payload) != check:
        return None, end
    return Frame(FrameKind(kind), payload, size, records, types, first, last), end


def foot_of(tail: bytes) -> Frame | None:
    """The frame that ends a complete segment, from the segment's last `HEADER_SIZE` bytes; None when it is not complete."""
    found = _unpack(tail, 0) if tail.startswith(_MAGIC) else None
    if found is None or found[0] is None or found[0].kind is not FrameKind.FOOT:
        return None
    return found[0]
