"""The identities of a policy, grouped by which of its selectors select them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from axoneme.plugins.policy.model import Peer
from axoneme.plugins.policy.selectors import Universe

#: The selectors of a policy that select an identity, by text, sorted. Equal signatures share a class.
Signature = tuple[str, ...]

#: Up to how many bits it is cheaper to look for them one by one.
_FEW = 24


def signatures(peers: Sequence[Peer], universe: Universe) -> dict[Signature, int]:
    """The known identities that some of these selectors select: bitmaps of those that the same ones do.

    :param peers: sorted by their text, in use in the universe.
    """
    if not peers or not universe.width:
        return {}
    size = (universe.width + 7) // 8
    rows = b"".join([universe.bits(peer).to_bytes(size, "little") for peer in peers])
    matrix = np.frombuffer(rows, dtype=np.uint8).reshape(len(peers), size)
    members = np.packbits(np.unpackbits(matrix, axis=1, bitorder="little"), axis=0).T
    width = members.shape[1]
    raw = members.tobytes()
    groups: dict[bytes, int] = {}
    for bit, start in enumerate(range(0, len(raw), width)):
        row = raw[start : start + width]
        groups[row] = groups.get(row, 0) | 1 << bit
    groups.pop(bytes(width), None)
    chosen = np.frombuffer(b"".join(groups), np.uint8).reshape(len(groups), width)
    which, peer = np.nonzero(np.unpackbits(chosen, axis=1, count=len(peers)).view(bool))
    bounds = np.searchsorted(which, np.arange(len(groups) + 1)).tolist()
    texts = [peers[index].text for index in peer.tolist()]
    return {
        tuple(texts[bounds[index] : bounds[index + 1]]): bits for index, bits in enumerate(groups.values())
    }


def positions(bits: int) -> Iterable[int]:
    """The numbers of the bits that are set, ascending."""
    if bits.bit_count() > _FEW:
        raw = np.frombuffer(bits.to_bytes((bits.bit_length() + 7) // 8, "little"), np.uint8)
        return list(np.flatnonzero(np.unpackbits(raw, bitorder="little")).tolist())
    found = []
    while bits:
        lowest = bits & -bits
        found.append(lowest.bit_length() - 1)
        bits ^= lowest
    return found
