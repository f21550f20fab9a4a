"""What is attached where in a made-up kernel: programs, the links that hold them, and classifier filters."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

from attrs import define, field

from axoneme.core.datapath.kernel import BpfError, Filter, ObjectType, Order, Place, ProgramAttributes
from axoneme.core.datapath.uapi import AttachType, LinkType

#: By attach type; all others are a cgroup's.
LINK_TYPES = {
    AttachType.TCX_INGRESS: LinkType.TCX,
    AttachType.TCX_EGRESS: LinkType.TCX,
    AttachType.XDP: LinkType.XDP,
    AttachType.SK_LOOKUP: LinkType.NETNS,
}


@define
class FakeProgram:
    id: int
    attributes: ProgramAttributes
    map_ids: tuple[int, ...] = ()
    #: What a test-run gives: (data, context) to (return value, data, context).
    run: Callable[[bytes, bytes], tuple[int, bytes, bytes]] | None = None


@define
class FakeLink:
    id: int
    attach: AttachType
    target: int
    program: FakeProgram
    detached: bool = False
    #: Folders in which it was pinned; a pin may have been renamed or removed there since.
    folders: set[Path] = field(factory=set)

    @property
    def pinned(self) -> bool:
        here = (path for folder in self.folders if folder.exists() for path in folder.iterdir())
        return any(path.is_file() and path.read_text() == f"{ObjectType.LINK} {self.id}" for path in here)


def link_type(attach: AttachType) -> LinkType:
    return LINK_TYPES.get(attach, LinkType.CGROUP)


def position(hook: list[int], order: Order | None) -> int:
    """Where a link comes among those of a hook, which are given by their ids. Raises `BpfError`."""
    if order is None or order.place is Place.LAST:
        return len(hook)
    if order.place is Place.FIRST:
        return 0
    if order.link_id not in hook:
        raise BpfError("attach beside a link that is not there", errno.ENOENT)
    return hook.index(order.link_id) + (order.place is Place.AFTER)


class FakeFilters:
    """Filters of the clsact qdisc, by interface, attach type, priority and handle."""

    def __init__(self) -> None:
        self._filters: dict[tuple[int, AttachType, int, int], Filter] = {}

    def replace(self, wanted: Filter) -> None:
        """Raises `BpfError` where another one has the place."""
        place = _place(wanted)
        if place in self._filters and self._filters[place].name != wanted.name:
            raise BpfError(f"attach filter {wanted.name}", errno.EEXIST)
        self._filters[place] = wanted

    def delete(self, unwanted: Filter) -> bool:
        present = self._filters.get(_place(unwanted))
        if present is None or present.name != unwanted.name:
            return False
        del self._filters[_place(unwanted)]
        return True

    def at(self, ifindex: int, attach: AttachType) -> list[Filter]:
        """In the order in which they run."""
        here = [each for place, each in self._filters.items() if place[:2] == (ifindex, attach)]
        here.reverse()  # within a priority the newest runs first
        return sorted(here, key=lambda each: each.priority)

    def vanish(self, ifindex: int) -> None:
        for place in [place for place in self._filters if place[0] == ifindex]:
            del self._filters[place]


def _place(one: Filter) -> tuple[int, AttachType, int, int]:
    return one.ifindex, one.attach, one.priority, one.handle
