"""The stretches of `lb_slots` that are in use. Services with the same backends and algorithm share one."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
from attrs import define

from axoneme.plugins.lb import algorithms
from axoneme.plugins.lb.numbers import Room

#: A backend's key (address, port, protocol) and its weight.
Member = tuple[bytes, int]

_SLOT: Final = 4
#: Contents up to so many bytes are known by themselves, longer ones by their hash.
_SHORT: Final = 256


@define(eq=False)
class _Stretch:
    first: int
    count: int
    users: int = 0
    inputs: tuple[tuple[Member, ...], int] | None = None
    #: Counts how often it fell out of use.
    idle: int = 0


class Stretches:
    """By content, with the number of their users."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self._stretches: dict[bytes, _Stretch] = {}
        self._of_inputs: dict[tuple[tuple[Member, ...], int], bytes] = {}
        self._idle: list[tuple[bytes, int]] = []

    def __len__(self) -> int:
        return len(self._stretches)

    def adopt(self, places: Iterable[tuple[int, int]], slots: bytes) -> None:
        """What the kernel has: (first, count) of each, and the content of the slots. What overlaps is given up."""
        kept, end = [], 0
        for first, count in sorted(places):
            content = slots[_SLOT * first : _SLOT * (first + count)]
            name = _name(content)
            if first >= end and len(content) == _SLOT * count and name not in self._stretches:
                self._stretches[name] = _Stretch(first, count)
                kept.append((first, count))
                end = first + count
        self.room.adopt(kept)

    def prune(self) -> None:
        """What was adopted and is not in use begins to rest."""
        self._idle += [(name, one.idle) for name, one in self._stretches.items() if not one.users]

    def use(
        self, members: tuple[Member, ...], size: int, number: Callable[[bytes], int]
    ) -> tuple[bytes, int, bytes | None]:
        """The stretch for these backends: its name, its first slot, and what is to be written there if it is new.

        :param size: of a consistent hashing table; 0 for another algorithm.
        :raises LimitError: when there is no room for it.
        """
        inputs = (members, size)
        name = self._of_inputs.get(inputs)
        written = None
        if name is None:
            content = _content(members, size, number)
            name = _name(content)
            if name not in self._stretches:
                count = len(content) // _SLOT
                self._stretches[name] = _Stretch(self.room.take(count), count)
                written = content
            self._of_inputs[inputs] = name
            self._stretches[name].inputs = inputs
        found = self._stretches[name]
        found.users += 1
        return name, found.first, written

    def release(self, name: bytes | None) -> None:
        """One user less."""
        if name is None:
            return
        one = self._stretches[name]
        one.users -= 1
        if not one.users:
            # Its backends may have other numbers when they are wanted again.
            if one.inputs is not None:
                self._of_inputs.pop(one.inputs, None)
                one.inputs = None
            one.idle += 1
            self._idle.append((name, one.idle))

    def place(self, name: bytes | None) -> tuple[int, int]:
        """First slot and number of slots."""
        if name is None:
            return 0, 0
        one = self._stretches[name]
        return one.first, one.count

    def shares(self, name: bytes | None) -> dict[bytes, int]:
        """How many slots each member has."""
        one = None if name is None else self._stretches.get(name)
        if one is None or one.inputs is None:
            return {}
        members, size = one.inputs
        weights = [weight for _, weight in members]
        chosen = (
            algorithms.maglev([key for key, _ in members], weights, size)
            if size
            else algorithms.weighted(weights)
        )
        counts = np.bincount(chosen, minlength=len(members)).tolist()
        return {key: count for (key, _), count in zip(members, counts, strict=True)}

    def take_idle(self) -> list[tuple[bytes, int]]:
        """What fell out of use since the last time, for `forget`."""
        idle, self._idle = self._idle, []
        return idle

    def forget(self, idle: Iterable[tuple[bytes, int]]) -> None:
        """What is still out of use makes room."""
        for name, count in idle:
            one = self._stretches.get(name)
            if one is not None and not one.users and one.idle == count:
                del self._stretches[name]
                self.room.give_back(one.first, one.count)


def _content(members: tuple[Member, ...], size: int, number: Callable[[bytes], int]) -> bytes:
    numbers = [number(key) for key, _ in members]
    weights = [weight for _, weight in members]
    if not size and len(set(weights)) == 1:
        return struct.pack(f"={len(numbers)}I", *numbers)
    chosen = (
        algorithms.maglev([key for key, _ in members], weights, size)
        if size
        else algorithms.weighted(weights)
    )
    return np.asarray(numbers, np.uint32)[chosen].tobytes()


def _name(content: bytes) -> bytes:
    if len(content) <= _SHORT:
        return b"=" + content
    return b"#" + hashlib.blake2b(content, digest_size=16).digest()
