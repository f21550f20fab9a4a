"""Several columns as one: a number per row that tells rows apart, in a few array operations.

Rows that differ get the same number with a chance of about 2^-64 per pair. The seeds are drawn anew for each object, so that nobody
outside can make rows that do.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class Mixer:
    """Mixes rows.

    :param words: how many columns they have at most.
    """

    def __init__(self, words: int) -> None:
        self._seeds = [np.uint64(secrets.randbits(64) | 1) for _ in range(words + 1)]

    def mix(self, words: Sequence[Array]) -> Array:
        """A number (u64) for each row of columns of unsigned integers."""
        mixed = np.zeros(len(words[0]), np.uint64)
        for word, seed in zip(words, self._seeds, strict=False):
            mixed ^= word
            mixed *= seed
            mixed ^= mixed >> np.uint64(29)
        mixed *= self._seeds[-1]
        return mixed
