"""Reads the verifier's log: which instruction it stopped at, and why, in one line."""

from __future__ import annotations

import re

from attrs import frozen

#: How many lines before the reason are worth showing: the path to the failing instruction.
TAIL = 12

_INSTRUCTION = re.compile(r"(\d+): (?:\([0-9a-f]{2}\)|R\d)")
_DECODED = re.compile(r"(\d+): \([0-9a-f]{2}\) (.*?)(?:\s+;.*)?$")
_NAMED = re.compile(r"\binsn (\d+)\b")
_PROCESSED = re.compile(r"processed (\d+) insns")
_NOISE = re.compile(
    r"(verification time|stack depth|processed \d|mark_precise|parent |last_idx |regs=|Func#|from \d|Live regs|BPF: |;)"
)


@frozen(kw_only=True)
class Verdict:
    """What the log says.

    :ivar instruction: index of the instruction at which the verifier stopped; None when it names none.
    :ivar text: that instruction, disassembled; empty when the log does not show it.
    :ivar reason: the verifier's own last words, one line.
    :ivar processed: how many instructions it had walked through by then; None when the log is cut off.
    :ivar tail: the last lines that lead to it.
    :ivar omitted: how many lines are before those.
    """

    instruction: int | None
    text: str
    reason: str
    processed: int | None
    tail: tuple[str, ...]
    omitted: int

    def summary(self) -> str:
        """One line: the reason, and where."""
        told = self.instruction is None or f"insn {self.instruction}" in self.reason
        place = "" if told else f" at instruction {self.instruction}"
        return f"{self.reason}{place}" + (f": {self.text}" if self.text else "")

    def excerpt(self) -> str:
        """The end of the log, and how much is left out."""
        head = [f"({self.omitted} lines omitted)"] if self.omitted else []
        return "\n".join([*head, *self.tail])


def parse(log: str) -> Verdict:
    """Never fails: of a log that it cannot make sense of, it gives the last line."""
    lines = [line.rstrip() for line in log.splitlines() if line.strip()]
    reason_at = _reason(lines)
    reason = lines[reason_at].strip() if reason_at is not None else "the verifier gives no reason"
    decoded = _decoded(lines[: reason_at or 0])
    instruction = _stopped_at(lines[: reason_at or 0], reason)
    processed = next((int(found[1]) for line in reversed(lines) if (found := _PROCESSED.match(line))), None)
    end = len(lines) if reason_at is None else reason_at + 1
    start = max(0, end - TAIL)
    return Verdict(
        instruction=instruction,
        text=decoded.get(instruction, "") if instruction is not None else "",
        reason=reason,
        processed=processed,
        tail=tuple(lines[start:end]),
        omitted=start,
    )


def _reason(lines: list[str]) -> int | None:
    """The last line that is neither an instruction, nor state, nor statistics."""
    for index in range(len(lines) - 1, -1, -1):
        if not _NOISE.match(lines[index]) and not _INSTRUCTION.match(lines[index]):
            return index
    return None


def _stopped_at(before: list[str], reason: str) -> int | None:
    for line in reversed(before):
        if found := _INSTRUCTION.match(line):
            return int(found[1])
    # Structural checks run before any instruction is walked; they name the instruction themselves.
    named = _NAMED.search(reason)
    return int(named[1]) if named else None


def _decoded(lines: list[str]) -> dict[int, str]:
    found = (_DECODED.match(line) for line in lines[-4 * TAIL :])
    return {int(match[1]): match[2] for match in found if match}
