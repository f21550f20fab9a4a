"""Blocks of ports: what one key of a longest-prefix table can express.

A block is `(protocol, bits, port)`: the ports of a protocol whose upper `bits` bits are those of `port`. Protocol 0 with
no bits is every protocol. For ICMP the type stands in the port's place.
"""

from __future__ import annotations

from collections.abc import Iterator

from axoneme.plugins.policy.model import Ports

Block = tuple[int, int, int]

EVERYTHING: Block = (0, 0, 0)
PORT_BITS = 16


def blocks(ports: Ports) -> tuple[Block, ...]:
    """The fewest blocks that make up a numeric range."""
    if ports.first == ports.last == 0:
        return ((int(ports.protocol), 0, 0),)
    found = []
    first, last = ports.first, ports.last
    while first <= last:
        size = first & -first or 1 << PORT_BITS
        while size > last - first + 1:
            size >>= 1
        found.append((int(ports.protocol), PORT_BITS - size.bit_length() + 1, first))
        first += size
    return tuple(found)


def covering(block: Block) -> Iterator[Block]:
    """Every block that covers this one, from the broadest to itself."""
    protocol, bits, port = block
    yield EVERYTHING
    if protocol:
        for length in range(bits + 1):
            yield (protocol, length, port & (0xFFFF << (PORT_BITS - length)) & 0xFFFF)


def covers(outer: Block, inner: Block) -> bool:
    """Whether all of `inner` lies in `outer`, be they equal."""
    protocol, bits, port = outer
    if not protocol:
        return True
    return protocol == inner[0] and bits <= inner[1] and (port ^ inner[2]) >> (PORT_BITS - bits) == 0


def span(block: Block) -> tuple[int, int]:
    """First and last of the block's ports, when the ports of all protocols are numbered in a row."""
    protocol, bits, port = block
    if not protocol:
        return (0, 1 << 24)
    first = (protocol << PORT_BITS) + port
    return (first, first + (1 << PORT_BITS - bits) - 1)


def specificity(block: Block) -> int:
    """The number of bits that the block fixes: 0 for everything, 8 for a protocol, up to 24 for a single port."""
    return 8 + block[1] if block[0] else 0
