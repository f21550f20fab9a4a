"""Content-addressed numbers for policies and classes.

A number is a hash of the content, so a restart computes the same ones and its diff is empty. A number that another
content has, or had until the removal that is still to be written, is passed over: what stands in the kernel under a number
never changes its meaning.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from attrs import define, field


@define
class Numbers:
    """:param bits: the width of the numbers; 0 is never given."""

    _bits: int = 32
    _of: dict[bytes, int] = field(factory=dict)
    _taken: dict[int, bytes] = field(factory=dict)
    _released: dict[int, None] = field(factory=dict)

    def take(self, digest: bytes) -> int:
        """The number of a content: its own, or a new one."""
        number = self._of.get(digest)
        if number is not None:
            self._released.pop(number, None)
            return number
        number = next(one for one in self._candidates(digest) if one not in self._taken)
        self._of[digest], self._taken[number] = number, digest
        return number

    def release(self, digest: bytes) -> None:
        """Gives a number up; it is passed over until `settle`."""
        self._released[self._of[digest]] = None

    def settle(self) -> None:
        """Everything released is out of use."""
        for number in self._released:
            del self._of[self._taken.pop(number)]
        self._released.clear()

    def _candidates(self, digest: bytes) -> Iterator[int]:
        mask = (1 << self._bits) - 1
        if number := int.from_bytes(digest[:4], "little") & mask:
            yield number
        for attempt in range(1 << 16):
            salted = hashlib.blake2b(digest, digest_size=4, salt=attempt.to_bytes(4, "little")).digest()
            number = int.from_bytes(salted, "little") & mask
            if number:
                yield number
        raise RuntimeError("no free number is left")
