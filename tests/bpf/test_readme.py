"""The map of the shared C names every file and every table, and nothing that is not there."""

from __future__ import annotations

import re

from axoneme.core.datapath import abi
from axoneme.core.datapath.attach import ATTACH_POINTS
from axoneme.core.datapath.composer import shared_folder

TEXT = (shared_folder() / "README.md").read_text()
NAMED = set(re.findall(r"`([^`]+)`", TEXT))


def test_every_header_has_its_place() -> None:
    there = {path.name for path in shared_folder().glob("*.h")}
    assert {name for name in NAMED if name.endswith(".h") and "/" not in name} == there


def test_the_tables_are_there() -> None:
    maps = {spec.name for spec in abi.core_maps(connections=1024, endpoints=8, ipcache=8, events=4096)}
    plain = {name.removesuffix("4").removesuffix("6") for name in maps} - {"audits", "drafts", "scratch"}
    named = {name.removesuffix("4") for name in NAMED}
    assert plain <= named


def test_the_attach_points_of_packets_are_there() -> None:
    assert {point.name for point in ATTACH_POINTS.values() if point.packets or point.frames} <= NAMED
