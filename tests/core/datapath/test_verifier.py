"""Logs of the verifier, as kernels write them, and what is made of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.core.datapath.verifier import TAIL, parse

WALKED = """\
0: R1=ctx() R10=fp0
0: (b7) r1 = 0                        ; R1=0
1: (61) r0 = *(u32 *)(r1 +0)
R1 invalid mem access 'scalar'
processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""
OLD = """\
func#0 @0
0: R1=ctx(id=0,off=0,imm=0) R10=fp0
0: (79) r2 = *(u64 *)(r1 +0)
invalid bpf_context access off=0 size=8
verification time 41 usec
stack depth 0
processed 1 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""
BRANCHES = """\
0: R1=ctx() R10=fp0
17: (15) if r0 == 0x0 goto pc+3       ; R0=map_value(map=m,ks=4,vs=4)

from 17 to 21: R0=0 R10=fp0
21: R0=0 R10=fp0
; *value = 1;
21: (62) *(u32 *)(r0 +0) = 1
R0 invalid mem access 'scalar'
processed 19 insns (limit 1000000) max_states_per_insn 0 total_states 1 peak_states 1 mark_read 1
"""
STRUCTURE = "unreachable insn 12\nprocessed 0 insns (limit 1000000) max_states_per_insn 0\n"
TOO_LARGE = """\
5: (05) goto pc-1
BPF program is too large. Processed 1000001 insn
processed 1000001 insns (limit 1000000) max_states_per_insn 4 total_states 5 peak_states 5 mark_read 1
"""


@pytest.mark.parametrize(
    ("log", "instruction", "reason", "processed", "summary"),
    [
        (
            WALKED,
            1,
            "R1 invalid mem access 'scalar'",
            2,
            "R1 invalid mem access 'scalar' at instruction 1: r0 = *(u32 *)(r1 +0)",
        ),
        (
            OLD,
            0,
            "invalid bpf_context access off=0 size=8",
            1,
            "invalid bpf_context access off=0 size=8 at instruction 0: r2 = *(u64 *)(r1 +0)",
        ),
        (
            BRANCHES,
            21,
            "R0 invalid mem access 'scalar'",
            19,
            "R0 invalid mem access 'scalar' at instruction 21: *(u32 *)(r0 +0) = 1",
        ),
        (STRUCTURE, 12, "unreachable insn 12", 0, "unreachable insn 12"),
        (
            TOO_LARGE,
            5,
            "BPF program is too large. Processed 1000001 insn",
            1000001,
            "BPF program is too large. Processed 1000001 insn at instruction 5: goto pc-1",
        ),
        ("", None, "the verifier gives no reason", None, "the verifier gives no reason"),
    ],
)
def test_logs(log: str, instruction: int | None, reason: str, processed: int | None, summary: str) -> None:
    verdict = parse(log)
    assert (verdict.instruction, verdict.reason, verdict.processed) == (instruction, reason, processed)
    assert verdict.summary() == summary


def test_long_logs_are_cut() -> None:
    lines = [f"{n}: (b7) r0 = {n}" for n in range(1000)]
    verdict = parse("\n".join([*lines, "R9 !read_ok", "processed 1000 insns (limit 1000000)"]))
    assert len(verdict.tail) == TAIL
    assert verdict.omitted == 1001 - TAIL
    assert verdict.excerpt().splitlines()[0] == f"({verdict.omitted} lines omitted)"
    assert verdict.excerpt().splitlines()[-1] == "R9 !read_ok"


@given(st.text())
def test_anything_is_read(log: str) -> None:
    assert parse(log).reason
