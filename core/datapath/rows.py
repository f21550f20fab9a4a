"""Vectorised work on arrays of keys and values, seen as rows of bytes."""

from __future__ import annotations

import mmap
from typing import Any, TypeAlias

import numpy as np
from attrs import frozen

Array: TypeAlias = np.ndarray[Any, Any]

#: Larger scratch arrays get pages of their own, which go back to the system with the array. From malloc they would stay
#: in the process: glibc raises its own threshold for that once such a block was freed.
_OWN_PAGES = 1 << 20


def round_up(size: int, to: int) -> int:
    return -(-size // to) * to


def scratch(count: int, dtype: np.dtype[Any]) -> Array:
    """An array with unspecified content, which costs memory only where it is written."""
    if count * dtype.itemsize < _OWN_PAGES:
        return np.empty(count, dtype)
    pages = mmap.mmap(-1, count * dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(pages, dtype)


def grown(array: Array, count: int) -> Array:
    """The array with room for `count` more rows."""
    larger = scratch(len(array) + count, array.dtype)
    larger[: len(array)] = array
    return larger


def as_bytes(rows: Array) -> Array:
    """The rows as a (n, itemsize) array of bytes; a view where possible."""
    count = len(rows)
    size = rows.dtype.itemsize * (rows.size // count if count else 1)
    return np.ascontiguousarray(rows).reshape(-1).view(np.uint8).reshape(count, size)


def as_words(rows: Array) -> Array:
    """The rows as a (n, words) array of u64, filled up with zeros; a view where possible."""
    raw = as_bytes(rows)
    if filling := -raw.shape[1] % 8:
        raw = np.pad(raw, ((0, 0), (0, filling)))
    return raw.reshape(-1).view(np.uint64).reshape(len(rows), raw.shape[1] // 8)


def nonzero(rows: Array) -> Array:
    """A mask of the rows that have any bit set."""
    return np.asarray(as_words(rows).any(axis=1))


def masked_prefixes(keys: Array) -> Array:
    """LPM keys (u32 prefix length, then the address bytes) with all bits behind the prefix cleared."""
    raw = as_bytes(keys).copy()
    lengths = raw[:, :4].copy().view(np.uint32).astype(np.int64)
    left = np.clip(lengths - 8 * np.arange(raw.shape[1] - 4), 0, 8)
    raw[:, 4:] &= ((0xFF00 >> left) & 0xFF).astype(np.uint8)
    return raw.reshape(-1).view(keys.dtype)


@frozen(eq=False)
class Plan:
    """What to write: indexes into the desired rows (`added`, `changed`) and into the actual ones (`removed`)."""

    added: Array
    changed: Array
    removed: Array


def compare(keys: Array, values: Array, actual_keys: Array, actual_values: Array) -> Plan:
    """Compares desired with actual entries. An actual key may occur twice (a scan beside a writer), a desired one not.

    :raises ValueError: when a desired key occurs twice.
    """
    wanted = len(keys)
    groups, number = _group(np.concatenate([as_words(keys), as_words(actual_keys)]))
    ours, theirs = groups[:wanted], groups[wanted:]
    if wanted and np.bincount(ours).max() > 1:
        raise ValueError("a key is desired twice")
    partner = np.full(number, -1)
    partner[theirs] = np.arange(len(theirs))
    match = partner[ours]
    common = np.flatnonzero(match >= 0)
    differs = (as_words(values)[common] != as_words(actual_values)[match[common]]).any(axis=1)
    keep = np.zeros(number, bool)
    keep[ours] = True
    return Plan(np.flatnonzero(match < 0), common[differs], np.flatnonzero(~keep[theirs]))


def missing(keys: Array, actual_keys: Array) -> Array:
    """Indexes of the keys that are not among the actual ones, each key once."""
    groups, number = _group(np.concatenate([as_words(keys), as_words(actual_keys)]))
    first = np.full(number, -1)
    first[groups[: len(keys)][::-1]] = np.arange(len(keys))[::-1]
    first[groups[len(keys) :]] = -1
    return np.sort(first[first >= 0])


def _group(words: Array) -> tuple[Array, int]:
    """A number for each row, the same for equal rows, and how many numbers there are."""
    if not len(words):
        return np.zeros(0, np.intp), 0
    order = np.lexsort(words.T)
    ordered = words[order]
    starts = np.concatenate([[False], (ordered[1:] != ordered[:-1]).any(axis=1)])
    groups = np.empty(len(words), np.intp)
    numbers = np.cumsum(starts)
    groups[order] = numbers
    return groups, int(numbers[-1]) + 1
