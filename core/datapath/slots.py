"""The words of a connection's entry that plugins have for themselves: who has which.

All programs share the entries, so the allocation is one for all of them, and a value of its own (`Slots.layout`) stands in
each entry: what was noted under another allocation is zeroed before anybody reads it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from attrs import field, frozen

from axoneme.core.datapath.abi import SLOT_WORDS
from axoneme.core.errors import PluginError
from axoneme.core.records import Stage


@frozen
class Slots:
    """:ivar first: the first word of each slot, by plugin and name.

    :ivar layout: 1 to 255, or 0 when there are none.
    """

    first: Mapping[tuple[str, str], int] = field(factory=dict)
    layout: int = 0

    @property
    def defines(self) -> dict[str, int]:
        """The constants behind `SLOT(conn, name)` in a plugin's C."""
        named = {f"SLOT_{plugin.replace('-', '_')}_{name}": at for (plugin, name), at in self.first.items()}
        return named | {"SLOT_LAYOUT": self.layout}


def allocate(stages: Iterable[tuple[str, Stage]]) -> Slots:
    """Gives every slot its words, in the order of names.

    :param stages: pairs of plugin name and stage, of all attach points.
    :raises PluginError: two stages of a plugin disagree about a slot, or all together want more than there is.
    """
    wanted: dict[tuple[str, str], int] = {}
    for plugin, stage in stages:
        for name, words in stage.slots.items():
            if wanted.setdefault((plugin, name), words) != words or words < 1:
                raise PluginError(
                    f"plugin {plugin}: the slot {name!r} has {words} words here and others there"
                )
    first, end = {}, 0
    for key in sorted(wanted):
        first[key], end = end, end + wanted[key]
    if end > SLOT_WORDS:
        owners = ", ".join(f"{plugin} ({name}: {words})" for (plugin, name), words in sorted(wanted.items()))
        raise PluginError(
            f"{end} words of each connection are wanted, and there are {SLOT_WORDS}: {owners}",
            hint="disable one of these plugins",
        )
    text = repr(sorted((key, first[key], wanted[key]) for key in wanted))
    return Slots(first, 1 + hashlib.sha256(text.encode()).digest()[0] % 255 if wanted else 0)
