"""Tokens in bytecode become file descriptors, and nothing else changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.core.datapath import asm
from axoneme.core.datapath.relocate import RelocationError, relocate, tokens

TOKENS = st.integers(0, 2**31 - 1)


@given(st.lists(st.tuples(st.booleans(), TOKENS), min_size=1), st.data())
def test_all_references_and_only_those(parts: list[tuple[bool, int]], data: st.DataObject) -> None:
    def program(numbers: dict[int, int]) -> bytes:
        return b"".join(asm.load_map(1, numbers[n]) if is_map else asm.mov(2, n) for is_map, n in parts)

    found = {number for is_map, number in parts if is_map}
    fds = {number: data.draw(TOKENS) for number in found}
    before = program({number: number for number in found})
    assert tokens(before) == found
    assert relocate(before, fds | {-1: 3}) == program(fds)


def test_an_unknown_token_is_an_error() -> None:
    with pytest.raises(RelocationError, match=r"tokens \[8\]"):
        relocate(asm.load_map(1, 7) + asm.load_map(1, 8), {7: 3})


@pytest.mark.parametrize("garbage", [b"", b"1234567"])
def test_no_bytecode(garbage: bytes) -> None:
    with pytest.raises(RelocationError, match="no bytecode"):
        relocate(garbage, {})
