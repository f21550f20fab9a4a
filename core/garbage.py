"""Python's search for cycles, kept out of where it only costs: while very many long-lived objects are made.

Each thousand of new objects may make it walk all that are there. Reading 20,000 services from files takes twice as long with it.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def uncollected(wanted: bool = True) -> Iterator[None]:
    """No search for cycles meanwhile, in the whole process; memory that is in none is freed as ever."""
    if not wanted or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
