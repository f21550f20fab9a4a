"""A sum that is mended by the tables is the sum of the mended packet."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from axoneme.core.datapath.crc32c import WORDS, zeros
from axoneme.core.testing.packets import crc32c

TABLES = zeros()


def difference(bits: int, length: int) -> int:
    """As bpf/sctp.h goes through the tables."""
    for digit in range(4):
        tables = TABLES[digit, length >> 4 * digit & 15]
        result = 0
        for nibble in range(8):
            result ^= int(tables[nibble, bits >> 4 * nibble & 15])
        bits = result
    return bits


def test_the_layout() -> None:
    assert (TABLES.size, TABLES.nbytes) == (WORDS, 32 * 1024)
    assert crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C


@given(packet=st.binary(min_size=4, max_size=2000), ports=st.binary(min_size=4, max_size=4))
def test_other_ports(packet: bytes, ports: bytes) -> None:
    bits = int.from_bytes(packet[:4], "little") ^ int.from_bytes(ports, "little")
    assert crc32c(packet) ^ difference(bits, len(packet)) == crc32c(ports + packet[4:])


def test_the_longest_packet() -> None:
    packet, ports = bytes(range(256)) * 256, b"\x01\x02\x03\x04"
    for length in (65_535, 65_534, 0xF0F1, 4096, 4095):
        old = packet[:length]
        bits = int.from_bytes(old[:4], "little") ^ int.from_bytes(ports, "little")
        assert crc32c(old) ^ difference(bits, length) == crc32c(ports + old[4:])
