"""Reads bcc's annotated disassembly: which line of the composed text each instruction came from.

bcc rewrites the text before it compiles it, so its line numbers drift from ours; what it quotes of each line shows by how
much.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

from attrs import define, field

from axoneme.core.datapath.composer import Composition

_FUNCTION = "Disassembly of function "
_SOURCE_LINE = re.compile(r"^; (?P<text>.*) // Line\s*(?P<line>\d+)$")
_INSTRUCTION = re.compile(r"^\s*(?P<number>\d+):\t")


@define
class _Program:
    """Quotes of source lines with bcc's numbers, and the instructions that follow each."""

    quotes: list[tuple[str, int]] = field(factory=list)
    instructions: list[tuple[int, int]] = field(factory=list)


class Listing:
    """The annotated disassembly of a text without `#line` marks.

    :param listing: what bcc printed.
    :param text: what it compiled.
    """

    def __init__(self, listing: str, text: str) -> None:
        self._programs = _parse(listing)
        self._text = [line.strip() for line in text.splitlines()]
        self._places: dict[str, list[int]] = {}
        for index, words in enumerate(self._text):
            self._places.setdefault(words, []).append(index)

    def line(self, program: str, instruction: int) -> int | None:
        """The line of the text, from 1 on, of an instruction; None when it cannot be told."""
        found = self._programs.get(program)
        before = [quote for number, quote in found.instructions if number <= instruction] if found else []
        if found is None or not before:
            return None
        return self._undrifted(found.quotes[before[-1]], self._anchors(found))

    def instructions_by_line(self, program: str) -> Counter[int]:
        """How many instructions came from each line, from 1 on."""
        found, counts = self._programs.get(program), Counter[int]()
        if found is None:
            return counts
        anchors = self._anchors(found)
        lines = [self._undrifted(quote, anchors) for quote in found.quotes]
        for _, quote in found.instructions:
            if (line := lines[quote]) is not None:
                counts[line] += 1
        return counts

    def _anchors(self, program: _Program) -> list[tuple[int, int]]:
        """Sorted pairs of bcc's number and the drift there, from the lines whose words occur only once."""
        return sorted(
            {
                (n, n - self._places[words][0])
                for words, n in program.quotes
                if len(self._places.get(words, ())) == 1
            }
        )

    def _undrifted(self, quote: tuple[str, int], anchors: Sequence[tuple[int, int]]) -> int | None:
        """Of the lines with the same words, the one nearest to where it should be."""
        words, number = quote
        if not anchors or words not in self._places:
            return None
        at = bisect_left(anchors, (number, 0))
        near = min(anchors[max(0, at - 1) : at + 1], key=lambda anchor: abs(anchor[0] - number))
        expected = number - near[1]
        return 1 + min(self._places[words], key=lambda index: abs(index - expected))


def _parse(listing: str) -> dict[str, _Program]:
    programs: dict[str, _Program] = {}
    current: _Program | None = None
    for line in listing.splitlines():
        if line.startswith(_FUNCTION):
            current = programs.setdefault(line.split()[-1], _Program())
        elif current is None:
            continue
        elif source := _SOURCE_LINE.match(line):
            current.quotes.append((source["text"].strip(), int(source["line"])))
        elif current.quotes and (number := _INSTRUCTION.match(line)):
            current.instructions.append((int(number[1]), len(current.quotes) - 1))
    return programs


def instructions_by_file(listing: Listing, composition: Composition) -> dict[str, int]:
    """How many instructions of all programs of a composition came from each source file."""
    counts: Counter[str] = Counter()
    files = _files(composition.text)
    for program in composition.programs:
        for line, number in listing.instructions_by_line(program).items():
            counts[files[line - 1]] += number
    return dict(counts)


def _files(text: str) -> list[str]:
    """The file that each line of a composed text is from."""
    files, file = [], "composed"
    for line in text.split("\n"):
        if mark := re.match(r'#line \d+ "([^"]*)"', line):
            file = mark[1]
        files.append(file)
    return files
