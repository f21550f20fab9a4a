"""The UUIDs of flows: computed from their numbers when somebody looks, not stored."""

from __future__ import annotations

import os
import uuid

import numpy as np

from axoneme.plugins.hubble.columns import Array

_HEX = np.frombuffer(b"".join(b"%02x" % byte for byte in range(256)), np.uint16)
_DASHES = (8, 13, 18, 23)
_PLACES = np.array([place for place in range(36) if place not in _DASHES])


class Uuids:
    """Random-looking UUIDs of version 4, two mixed halves of a flow's number.

    :param key: 16 random bytes, by which two agents, or two starts of one, give different ones.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._keys = np.frombuffer(key or os.urandom(16), np.uint64)

    def halves(self, numbers: Array) -> tuple[Array, Array]:
        """Both 64-bit halves of the UUIDs (RFC 9562, 5.4) of flows."""
        seeds = numbers.astype(np.uint64)
        high, low = _mix(seeds ^ self._keys[0]), _mix(seeds + self._keys[1])
        high = high & np.uint64(0xFFFFFFFFFFFF0FFF) | np.uint64(0x4000)
        low = low & np.uint64(0x3FFFFFFFFFFFFFFF) | np.uint64(0x8000000000000000)
        return high, low

    def text(self, numbers: Array) -> Array:
        """The same as (n, 36) ASCII characters."""
        raw = np.stack(self.halves(numbers), axis=1).astype(">u8").view(np.uint8)
        result = np.full((len(numbers), 36), ord("-"), np.uint8)
        result[:, _PLACES] = _HEX[raw].view(np.uint8).reshape(len(numbers), 32)
        return result


def parse(text: str) -> tuple[int, int] | None:
    """The halves of a UUID in the form that flows have; None for anything else, which no flow has."""
    try:
        number = uuid.UUID(text)
    except ValueError:
        return None
    return (number.int >> 64, number.int & 0xFFFFFFFFFFFFFFFF) if str(number) == text else None


def _mix(numbers: Array) -> Array:
    """splitmix64."""
    with np.errstate(over="ignore"):
        mixed = numbers + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ mixed >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ mixed >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        result: Array = mixed ^ mixed >> np.uint64(31)
    return result
