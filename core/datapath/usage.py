"""What was done to maps, counted for this process: writing and deleting, by map and outcome."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping


class Usage:
    """Counts operations. Maps are written by several threads."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._lock = threading.Lock()

    def add(self, name: str, operation: str, *, times: int = 1, ok: bool = True) -> None:
        with self._lock:
            self._counts[name, operation, "success" if ok else "fail"] += times

    def read(self) -> Mapping[tuple[str, ...], float]:
        """By (map, operation, outcome); an entry is one operation, also in a batch."""
        with self._lock:
            return {key: float(number) for key, number in self._counts.items()}


OPERATIONS = Usage()
