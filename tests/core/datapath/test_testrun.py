"""Test-runs answer with verdict, packet and context."""

from __future__ import annotations

import pytest

from axoneme.core.datapath import asm
from axoneme.core.datapath.kernel import BpfError, Program, ProgramAttributes
from axoneme.core.datapath.syscall import SyscallKernel
from axoneme.core.datapath.testrun import SK_BUFF, XDP_MD, run_skb, run_xdp
from axoneme.core.datapath.uapi import ProgramType

pytestmark = pytest.mark.kernel

PACKET = bytes(range(12)) + b"\x08\x00" + bytes(50)


def load(kernel: SyscallKernel, type_: ProgramType, instructions: bytes) -> Program:
    return Program.load(kernel, ProgramAttributes(type=type_, name="test", instructions=instructions))


def test_layouts_are_the_kernels() -> None:
    assert (SK_BUFF.size, XDP_MD.size) == (192, 24)


@pytest.mark.parametrize("verdict", [0, 2, 7, -1])
def test_verdicts_keep_their_sign(running_kernel: SyscallKernel, verdict: int) -> None:
    with load(running_kernel, ProgramType.SCHED_CLS, asm.returning(verdict)) as program:
        assert run_skb(program, PACKET).verdict == verdict


def test_context_goes_in_and_comes_out(running_kernel: SyscallKernel) -> None:
    """The program returns cb[0] and writes 99 to the mark."""
    text = asm.load_word(0, 1, SK_BUFF.dtype.fields["cb"][1]) + asm.mov(2, 99)  # type: ignore[index]
    text += asm.store_register_word(1, 8, 2) + asm.leave()
    with load(running_kernel, ProgramType.SCHED_CLS, text) as program:
        outcome = run_skb(program, PACKET, cb=[5, 0, 0, 0, 0], mark=1, ifindex=1)
    assert outcome.verdict == 5
    assert outcome.context["mark"] == 99
    assert outcome.packet == PACKET


def test_repeats_give_a_mean(running_kernel: SyscallKernel) -> None:
    with load(running_kernel, ProgramType.SCHED_CLS, asm.returning(0)) as program:
        assert 0 < run_skb(program, PACKET, repeat=10000).duration < 10000


def test_xdp(running_kernel: SyscallKernel) -> None:
    with load(running_kernel, ProgramType.XDP, asm.returning(2)) as program:
        outcome = run_xdp(program, PACKET, ingress_ifindex=1)
    assert (outcome.verdict, outcome.packet) == (2, PACKET)


def test_what_the_kernel_does_not_take(running_kernel: SyscallKernel) -> None:
    with load(running_kernel, ProgramType.SCHED_CLS, asm.returning(0)) as program:
        with pytest.raises(BpfError, match="test-run program"):
            run_skb(program, b"short")
        with pytest.raises(BpfError, match="test-run program"):
            run_skb(program, PACKET, protocol=8)
