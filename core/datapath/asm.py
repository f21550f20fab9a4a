"""A few instructions by hand: enough for feature probes and for tests that need a program but no compiler."""

from __future__ import annotations

import struct

_INSTRUCTION = struct.Struct("<BBhi")


def _encode(code: int, dst: int = 0, src: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return _INSTRUCTION.pack(code, src << 4 | dst, offset, immediate)


def mov(register: int, number: int) -> bytes:
    """`register = number` (64 bits, sign-extended)."""
    return _encode(0xB7, register, immediate=number)


def copy(register: int, source: int) -> bytes:
    """`register = source`."""
    return _encode(0xBF, register, source)


def add(register: int, number: int) -> bytes:
    """`register += number`."""
    return _encode(0x07, register, immediate=number)


def load_map(register: int, token: int) -> bytes:
    """`register = map`, as two instructions; `token` is a map's token or file descriptor."""
    return _encode(0x18, register, 1, immediate=token) + _encode(0)


def load_word(register: int, base: int, offset: int) -> bytes:
    """`register = *(u32 *)(base + offset)`."""
    return _encode(0x61, register, base, offset)


def store_word(base: int, offset: int, number: int) -> bytes:
    """`*(u32 *)(base + offset) = number`."""
    return _encode(0x62, base, offset=offset, immediate=number)


def store_double(base: int, offset: int, source: int) -> bytes:
    """`*(u64 *)(base + offset) = source`."""
    return _encode(0x7B, base, source, offset)


def store_register_word(base: int, offset: int, source: int) -> bytes:
    """`*(u32 *)(base + offset) = source`."""
    return _encode(0x63, base, source, offset)


def jump_if_zero(register: int, over: int) -> bytes:
    """Skips `over` instructions when the register is zero."""
    return _encode(0x15, register, offset=over)


def call(helper: int) -> bytes:
    """`r0 = helper(r1 … r5)`."""
    return _encode(0x85, immediate=helper)


def leave() -> bytes:
    """Returns r0."""
    return _encode(0x95)


def returning(number: int) -> bytes:
    """A whole program that returns a number."""
    return mov(0, number) + leave()
