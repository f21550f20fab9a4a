"""What the programs need to mend SCTP's checksum, CRC32c (RFC 9260, appendix A), when they exchange ports.

The sum covers the whole packet, but a CRC is linear: two packets of one length that differ in their first four bytes have
sums that differ by what those four bytes become when as many bytes as the packet has are counted, all others zero. To
count a zero byte is a linear map of the 32 bits of the register, and to count `n` of them is its n-th power. So the
payload need not be read: `new = old ^ power(n)(old ports ^ new ports)`.

Powers are kept for each hexadecimal digit of a length, and each as 8 tables of 16 words, one per half a byte of the register:
any length up to 65,535 takes 32 loads, and the program has no branch for it.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

#: Castagnoli's polynomial, the lowest bit first.
_POLYNOMIAL: Final = 0x82F63B78
_DIGITS, _VALUES, _NIBBLES = 4, 16, 8

#: Words of `zeros`.
WORDS: Final = _DIGITS * _VALUES * _NIBBLES * 16

Words = np.ndarray[Any, np.dtype[np.uint32]]


def zeros() -> Words:
    """The tables, of shape (4, 16, 8, 16): [digit of the length][its value][half byte of the register][its value]."""
    tables = np.zeros((_DIGITS, _VALUES, _NIBBLES, 16), np.uint32)
    step = _one_byte()
    for digit in range(_DIGITS):
        power = np.uint32(1) << np.arange(32, dtype=np.uint32)
        for value in range(_VALUES):
            tables[digit, value] = _by_half_bytes(power)
            power = _applied(step, power)
        step = power
    return tables


def _one_byte() -> Words:
    """What each single bit of the register becomes when a zero byte is counted: a map is kept as its 32 columns."""
    columns: Words = np.uint32(1) << np.arange(32, dtype=np.uint32)
    for _ in range(8):
        lowest = columns & np.uint32(1)
        columns = (columns >> np.uint32(1)) ^ lowest * np.uint32(_POLYNOMIAL)
    return columns


def _applied(columns: Words, values: Words) -> Words:
    """The map of these columns, of each value."""
    bits = (values[..., np.newaxis] >> np.arange(32, dtype=np.uint32)) & 1
    result: Words = np.bitwise_xor.reduce(np.where(bits, columns, np.uint32(0)), axis=-1)
    return result


def _by_half_bytes(columns: Words) -> Words:
    shifts = 4 * np.arange(_NIBBLES, dtype=np.uint32)[:, np.newaxis]
    return _applied(columns, np.arange(16, dtype=np.uint32) << shifts)
