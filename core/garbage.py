"""Python's search for cycles, kept out of where it only costs: while very many long-lived objects are made, and over them.

Each thousand of new objects may make it walk all that are there. Reading 20,000 services from files takes twice as long
with it, and each later walk over what was read would stop the agent for half a second.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def uncollected(wanted: bool = True) -> Iterator[None]:
    """No search for cycles meanwhile, in the whole process, and none later among what there is at the end.

    Memory that is in no cycle is freed as ever. A cycle of what there is at the end is found after `collected`.
    """
    if not wanted or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def collected() -> None:
    """To be called when much was let go of, like the plugins of a former configuration: searches everything."""
    if gc.get_freeze_count():
        gc.unfreeze()
        gc.collect()
        gc.freeze()
