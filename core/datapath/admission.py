"""How many connections the kernel may enter: the agent's half of bpf/admission.h.

Programs add up the entries that they make and never count down. The agent looks into the table now and then, removes what
is over, and grants as much as is left: `entered` may go so far beyond what it was. As long as it was read before the
table, what is entered meanwhile counts twice at most, never not at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from attrs import define, frozen

from axoneme.core.datapath.abi import CONNECTIONS_RESERVE
from axoneme.core.datapath.maps import Map

#: Seconds that a grant holds. It is renewed far more often; when it ends, the agent is gone, and nothing is refused.
LIFE = 30.0


@frozen
class Counts:
    """What programs did to one family's table since the maps were made; see `abi.ADMISSION`."""

    entered: int
    refused: int


def limit_of(table: Map) -> int:
    """The setting that a connection table was made for: without the reserve."""
    return max(table.spec.max_entries - CONNECTIONS_RESERVE * table.kernel.possible_cpus, 0)


def allowance(entered: int, entries: int, limit: int) -> int:
    """How far `entered` may go.

    :param entered: read before the entries were counted.
    :param entries: in the table.
    """
    return entered + max(limit - entries, 0)


def _now() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


@define
class Grants:
    """One family's grant, and what was used of it.

    :param maps: gives a map by name; the build that runs decides which.
    :ivar room: what the last grant gave, in entries.
    """

    family: int
    maps: Callable[[str], Map]
    room: int = 0
    _allowance: int | None = None
    _base: int = 0

    def counts(self) -> Counts:
        row = self.maps("admissions").lookup(self._index)
        return Counts(int(row["entered"]), int(row["refused"]))

    def grant(self, before: Counts, entries: int, limit: int) -> None:
        """After a pass.

        :param before: what was counted when the pass began.
        :param entries: those that it left.
        """
        self._allowance, self._base = allowance(before.entered, entries, limit), before.entered
        self.room = self._allowance - before.entered
        # Programs read the end first: none must see the new end with an allowance of long ago.
        known = int(self.maps("grants").lookup(self._index)["until"])
        self._write(known)
        self.renew()

    def renew(self) -> None:
        """The agent lives: what is granted holds on. Nothing happens before the first grant."""
        if self._allowance is not None:
            self._write(_now() + int(LIFE * 1e9))

    def _write(self, until: int) -> None:
        self.maps("grants").update(self._index, {"allowance": self._allowance, "until": until})

    def is_short(self, now: Counts) -> bool:
        """Whether half of the room is used up, or there is none for a connection: it is time to look what can go."""
        return 2 * (now.entered - self._base) >= self.room - 1

    @property
    def _index(self) -> int:
        return int(self.family == 6)
