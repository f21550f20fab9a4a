"""Puts open maps into bytecode, in the places where the compiler left their tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from axoneme.core.errors import KernelError

Instructions: TypeAlias = np.ndarray[Any, Any]

_INSTRUCTION = np.dtype([("code", "u1"), ("registers", "u1"), ("offset", "<i2"), ("immediate", "<i4")])
_LD_IMM64 = 0x18
_PSEUDO_MAP_FD = 1


class RelocationError(KernelError):
    """Bytecode that refers to a map which nobody gave, or that is no bytecode."""


def _map_references(instructions: Instructions) -> Instructions:
    source = instructions["registers"] >> 4
    found = (instructions["code"] == _LD_IMM64) & (source == _PSEUDO_MAP_FD)
    # The second half of an ld_imm64 has code 0, so it is never taken for a reference itself.
    return np.flatnonzero(found)


def _parse(bytecode: bytes) -> Instructions:
    if not bytecode or len(bytecode) % _INSTRUCTION.itemsize:
        raise RelocationError(f"{len(bytecode)} bytes are no bytecode")
    return np.frombuffer(bytecode, _INSTRUCTION).copy()


def tokens(bytecode: bytes) -> frozenset[int]:
    """The tokens of all maps that the bytecode refers to."""
    instructions = _parse(bytecode)
    return frozenset(instructions["immediate"][_map_references(instructions)].tolist())


def relocate(bytecode: bytes, fds: Mapping[int, int]) -> bytes:
    """The bytecode with each map's token replaced by its file descriptor.

    :param fds: token to file descriptor.
    :raises RelocationError: for a token that is not among them.
    """
    instructions = _parse(bytecode)
    places = _map_references(instructions)
    wanted = instructions["immediate"][places]
    if unknown := set(wanted.tolist()) - set(fds):
        raise RelocationError(f"bytecode refers to unknown maps: tokens {sorted(unknown)}")
    instructions["immediate"][places] = [fds[token] for token in wanted.tolist()]
    return instructions.tobytes()
