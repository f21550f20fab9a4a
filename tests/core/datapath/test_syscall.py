"""What only the running kernel can show."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path

import pytest

from axoneme.core.datapath import asm
from axoneme.core.datapath.kernel import (
    BpfError,
    MapAttributes,
    ObjectType,
    Program,
    ProgramAttributes,
    VerifierRejection,
)
from axoneme.core.datapath.layout import u32
from axoneme.core.datapath.maps import Map, MapSpec
from axoneme.core.datapath.relocate import relocate
from axoneme.core.datapath.syscall import SyscallKernel, possible_cpus
from axoneme.core.datapath.testrun import run_skb
from axoneme.core.datapath.uapi import AttachType, Helper, MapKind, ProgramType

pytestmark = pytest.mark.kernel

TOKEN = 7_000_001


def counting(fd: int) -> bytes:
    """A program that adds the packet's mark to entry 0 of an array of u32, and returns what was there before."""
    text = b"".join(
        (
            asm.copy(6, 1),
            asm.store_word(10, -4, 0),
            asm.load_map(1, TOKEN),
            asm.copy(2, 10),
            asm.add(2, -4),
            asm.call(Helper.MAP_LOOKUP_ELEM),
            asm.jump_if_zero(0, 4),
            asm.load_word(7, 6, 8),
            asm.load_word(8, 0, 0),
            asm.store_register_word(0, 0, 7),
            asm.copy(0, 8),
            asm.leave(),
        )
    )
    return relocate(text, {TOKEN: fd})


def classifier(name: str, instructions: bytes) -> ProgramAttributes:
    return ProgramAttributes(type=ProgramType.SCHED_CLS, name=name, instructions=instructions)


def test_a_program_reaches_its_map(running_kernel: SyscallKernel) -> None:
    spec = MapSpec("totals", MapKind.ARRAY, u32, u32)
    with (
        Map.create(running_kernel, spec) as totals,
        Program.load(running_kernel, classifier("counting", counting(totals.fd))) as program,
    ):
        assert run_skb(program, bytes(64), mark=11).verdict == 0
        assert run_skb(program, bytes(64), mark=12).verdict == 11
        assert totals.lookup(0) == 12
        info = program.info
        assert info.map_ids == (totals.id,)
        assert (info.name, info.type, info.verified) == ("counting", ProgramType.SCHED_CLS, info.verified)
        assert info.verified >= 12


def test_the_verifier_says_why(running_kernel: SyscallKernel) -> None:
    with pytest.raises(VerifierRejection, match="verifier rejects program broken") as refused:
        running_kernel.program_load(classifier("broken", asm.load_word(0, 0, 0) + asm.leave()))
    assert refused.value.errno == errno.EACCES
    assert "R0 !read_ok" in refused.value.log


def test_a_log_that_does_not_fit_at_first(running_kernel: SyscallKernel) -> None:
    text = b"".join(asm.mov(1 + n % 5, n) for n in range(3000)) + asm.load_word(0, 0, 0) + asm.leave()
    with pytest.raises(VerifierRejection) as refused:
        running_kernel.program_load(classifier("long", text))
    assert refused.value.log.startswith("0: ")
    assert "R0 !read_ok" in refused.value.log
    assert len(refused.value.log) > 1 << 16


def test_descriptors_are_closed_on_exec(running_kernel: SyscallKernel) -> None:
    with Map.create(running_kernel, MapSpec("m", MapKind.HASH, u32, u32)) as opened:
        assert fcntl.fcntl(opened.fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def test_ids(running_kernel: SyscallKernel) -> None:
    with Map.create(running_kernel, MapSpec("m", MapKind.HASH, u32, u32)) as opened:
        number = opened.id
        assert number in running_kernel.ids(ObjectType.MAP)
        again = running_kernel.open_id(ObjectType.MAP, number)
        assert again is not None
        assert running_kernel.map_info(again).id == number
        running_kernel.close(again)
    assert running_kernel.open_id(ObjectType.PROGRAM, 2**31) is None


def test_refusals_carry_the_errno(running_kernel: SyscallKernel) -> None:
    impossible = MapAttributes(kind=MapKind.HASH, name="m", key_size=0, value_size=4, max_entries=1)
    with pytest.raises(BpfError, match=r"create map m: Invalid argument \[EINVAL\]") as refused:
        running_kernel.map_create(impossible)
    assert refused.value.errno == errno.EINVAL


def test_statistics_count_runs(running_kernel: SyscallKernel) -> None:
    statistics = running_kernel.enable_statistics()
    try:
        with Program.load(running_kernel, classifier("counted", asm.returning(0))) as program:
            run_skb(program, bytes(64), repeat=10)
            assert program.info.run_count >= 10
            assert program.info.run_time_ns > 0
    finally:
        running_kernel.close(statistics)


@pytest.mark.parametrize(
    ("type_", "attach", "verdict"),
    [
        (ProgramType.CGROUP_SOCK_ADDR, AttachType.CGROUP_INET4_CONNECT, 1),
        (ProgramType.CGROUP_SOCK_ADDR, AttachType.CGROUP_UDP6_RECVMSG, 1),
        (ProgramType.CGROUP_SKB, AttachType.CGROUP_INET_EGRESS, 1),
        (ProgramType.SK_LOOKUP, AttachType.SK_LOOKUP, 1),
        (ProgramType.XDP, AttachType.XDP, 2),
    ],
)
def test_program_types(
    running_kernel: SyscallKernel, type_: ProgramType, attach: AttachType, verdict: int
) -> None:
    attributes = ProgramAttributes(
        type=type_, name="probe", instructions=asm.returning(verdict), expected_attach=attach
    )
    with Program.load(running_kernel, attributes) as program:
        assert program.info.type is type_


def test_a_frozen_map_takes_no_updates(running_kernel: SyscallKernel) -> None:
    with Map.create(running_kernel, MapSpec("m", MapKind.ARRAY, u32, u32)) as opened:
        running_kernel.map_freeze(opened.fd)
        with pytest.raises(BpfError) as refused:
            opened.update(0, 1)
        assert refused.value.errno == errno.EPERM


@pytest.mark.parametrize(("text", "count"), [("0", 1), ("0-3", 4), ("0-3,8-11", 12), ("0,2", 3)])
def test_possible_cpus(tmp_path: Path, text: str, count: int) -> None:
    (tmp_path / "possible").write_text(text + "\n")
    assert possible_cpus(tmp_path / "possible") == count
