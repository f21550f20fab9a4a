"""What the kernel chooses from: a stretch of slots, each with a backend, in proportion to the backends' weights.

For random choice, round robin and least connections a stretch has each backend as often as it has weight, well mixed. For
consistent hashing it is a table in the manner of Maglev (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load
Balancer", NSDI 2016, section 3.4): every backend has its own order of the slots, a permutation that follows from its name
alone, and an equal share. Who gets a slot that two want is settled as in stable matching (Gale and Shapley): the one that
wants it earlier. So the table does not depend on the order in which backends are named, and a backend that comes or goes
moves few flows beyond its own. All of it is arithmetic on arrays.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]

#: The most slots of one service whose weights have no small common measure.
MAX_SLOTS: Final = 4096


def shares(weights: Sequence[int], slots: int) -> Array:
    """How many of `slots` each weight gets: exact to one slot, the largest remainders first."""
    exact = np.asarray(weights, np.float64) * slots / sum(weights)
    counts = np.floor(exact).astype(np.int64)
    rest = slots - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:rest]] += 1
    return counts


def weighted(weights: Sequence[int]) -> Array:
    """Indexes of backends, each as often as it has weight, and evenly spread.

    Weights without a small common measure are rounded to `MAX_SLOTS` slots.
    """
    if len(set(weights)) == 1:
        return np.arange(len(weights), dtype=np.uint32)
    common = math.gcd(*weights)
    counts = np.asarray(weights, np.int64) // common
    if counts.sum() > MAX_SLOTS:
        counts = np.maximum(shares(weights, MAX_SLOTS), 1)
    who = np.repeat(np.arange(len(weights), dtype=np.uint32), counts)
    turn = np.concatenate([(np.arange(n) + 0.5) / n for n in counts.tolist()])
    return np.asarray(who[np.argsort(turn, kind="stable")])


def maglev(names: Sequence[bytes], weights: Sequence[int], size: int) -> Array:
    """A table of `size` slots (a prime) with the index of a backend each.

    :param names: what tells backends apart, the same on every node.
    """
    counts = shares(weights, size)
    if len(names) == 1:
        return np.zeros(size, np.uint32)
    ranks = _ranks(names, size)
    ranks /= np.maximum(counts, 1, dtype=np.float32)[:, None]
    return _matched(ranks, counts)


def _ranks(names: Sequence[bytes], size: int) -> Array:
    """[i, j]: how many slots backend i wants before slot j."""
    ranks = np.empty((len(names), size), np.float32)
    turns, rank = np.arange(size, dtype=np.int64), np.arange(size, dtype=np.float32)
    for row, name in zip(ranks, names, strict=True):
        first, second = np.frombuffer(hashlib.blake2b(name, digest_size=16).digest(), np.uint64).tolist()
        row[(first % size + (second % (size - 1) + 1) * turns) % size] = rank
    return ranks


def _matched(ranks: Array, counts: Array) -> Array:
    """The stable matching in which slots ask backends: each takes the slots that it wants most, as many as it may.

    Refusals are written into `ranks`.
    """
    owner = np.argmin(ranks, axis=0)
    while True:
        load = np.bincount(owner, minlength=len(counts))
        over = np.flatnonzero(load > counts).tolist()
        if not over:
            return np.asarray(owner, np.uint32)
        refused = []
        for backend in over:
            mine = np.flatnonzero(owner == backend)
            worst = mine[np.argsort(ranks[backend, mine], kind="stable")[counts[backend] :]]
            ranks[backend, worst] = np.inf
            refused.append(worst)
        again = np.concatenate(refused)
        owner[again] = np.argmin(ranks[:, again], axis=0)
