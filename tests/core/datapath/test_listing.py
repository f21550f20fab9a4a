"""From bcc's annotated disassembly back to the lines of our text, although bcc moves them."""

from __future__ import annotations

import pytest

from axoneme.core.datapath.listing import Listing

TEXT = """int helper(void)
{
	return shared_words + 1;
}
#define OTHER 1
int helper2(void)
{
	return shared_words + 1;
}
int prog(void)
{
	int unique_words = 7;
	return unique_words;
}"""

#: Lines 3 and 8 read the same; bcc's numbers are 50 too large at the top and 54 at the bottom.
PRINTED = """Disassembly of function other
; int unique_words = 7; // Line  66
   0:\tb7 00 00 00\tr0 = 0
Disassembly of function prog
; int helper(void) // Line  51
   0:\tb7 00 00 00\tr0 = 0
; return shared_words + 1; // Line  53
   1:\tb7 00 00 00\tr0 = 1
   2:\tb7 00 00 00\tr0 = 2
; int unique_words = 7; // Line  66
   3:\tb7 00 00 00\tr0 = 3
; return shared_words + 1; // Line  62
   4:\t18 00 00 00\tr0 = 4
   6:\tb7 00 00 00\tr0 = 5
; words that are nowhere // Line1234
   7:\tb7 00 00 00\tr0 = 6
"""


@pytest.mark.parametrize(
    ("instruction", "line"), [(0, 1), (1, 3), (2, 3), (3, 12), (4, 8), (5, 8), (6, 8), (7, None)]
)
def test_an_instruction_has_the_nearest_line_with_its_words(instruction: int, line: int | None) -> None:
    assert Listing(PRINTED, TEXT).line("prog", instruction) == line


def test_instructions_are_counted_by_line() -> None:
    assert Listing(PRINTED, TEXT).instructions_by_line("prog") == {1: 1, 3: 2, 12: 1, 8: 2}


def test_of_an_unknown_program_nothing_is_known() -> None:
    listing = Listing(PRINTED, TEXT)
    assert listing.line("absent", 0) is None
    assert not listing.instructions_by_line("absent")
