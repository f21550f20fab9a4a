"""Constant tables that the shared C needs beside some stages, and does without beside others."""

from __future__ import annotations

from collections.abc import Iterable

from axoneme.core.datapath import crc32c
from axoneme.core.datapath.attach import ATTACH_POINTS
from axoneme.core.datapath.layout import Struct, array, u32
from axoneme.core.datapath.maps import MapKind, MapSpec
from axoneme.core.records import Phase, Stage

#: SCTP's checksum, for programs that exchange ports (bpf/sctp.h).
CRC32C_ZEROS = MapSpec(
    "crc32c_zeros", MapKind.ARRAY, u32,
    Struct("crc32c_zeros", {"words": array(u32, crc32c.WORDS)}, "See `axoneme.core.datapath.crc32c`."), 1,
    doc="what zero bytes do to a CRC32c", content=lambda: crc32c.zeros().tobytes(),
)  # fmt: skip


def maps_of_translation(stages: Iterable[Stage]) -> list[MapSpec]:
    """What the shared C needs if one of these stages exchanges addresses or ports of packets, and else need not have."""
    points = {name for stage in stages if stage.phase is Phase.TRANSLATE for name in stage.attach}
    translating = any(point.packets for name, point in ATTACH_POINTS.items() if name in points)
    return [CRC32C_ZEROS] if translating else []
