"""What is common to all kernels: errors that explain themselves, and descriptors that are owned."""

from __future__ import annotations

import errno

import pytest

from axoneme.core.datapath import asm
from axoneme.core.datapath.kernel import (
    BpfError,
    Handle,
    Kernel,
    MapFull,
    Program,
    ProgramAttributes,
    VerifierRejection,
)
from axoneme.core.datapath.layout import u32
from axoneme.core.datapath.maps import Map, MapSpec
from axoneme.core.datapath.uapi import AttachType, MapKind, ProgramType
from axoneme.core.errors import KernelError


def classifier(name: str = "test") -> ProgramAttributes:
    return ProgramAttributes(type=ProgramType.SCHED_CLS, name=name, instructions=asm.returning(0))


def test_errors_name_operation_and_errno() -> None:
    error = BpfError("attach to XDP", errno.EBUSY)
    assert str(error) == "attach to XDP: Device or resource busy [EBUSY]"
    assert isinstance(error, KernelError)
    assert "root" in str(BpfError("create map m", errno.EPERM))
    assert "[524]" in str(BpfError("look up", 524))


def test_special_errors_carry_more() -> None:
    assert MapFull("update", errno.E2BIG, written=7).written == 7
    assert VerifierRejection("entry", errno.EACCES, "log").log == "log"


def test_handles_own_their_descriptor(kernel: Kernel) -> None:
    with Handle(kernel, kernel.program_load(classifier())) as owned:
        kernel.program_info(owned.fd)
    assert owned.closed
    owned.close()
    with pytest.raises(ValueError, match="closed"):
        owned.fd  # noqa: B018  (reading it is the test)


def test_an_unpinned_link_goes_with_its_descriptor(kernel: Kernel, tmp_path: object) -> None:
    from axoneme.core.datapath.netns import NetnsTarget

    attributes = ProgramAttributes(
        type=ProgramType.SK_LOOKUP,
        name="lookup",
        instructions=asm.returning(1),
        expected_attach=AttachType.SK_LOOKUP,
    )
    with (
        Program.load(kernel, attributes) as program,
        Handle(kernel, NetnsTarget().link(kernel, program.fd)),
        open("/proc/self/ns/net") as namespace,
    ):
        number = program.info.id
        assert number in kernel.hook_state(namespace.fileno(), AttachType.SK_LOOKUP).program_ids
    with open("/proc/self/ns/net") as namespace:
        assert number not in kernel.hook_state(namespace.fileno(), AttachType.SK_LOOKUP).program_ids


def test_a_detached_link_takes_no_program(kernel: Kernel) -> None:
    from axoneme.core.datapath.netns import NetnsTarget

    attributes = ProgramAttributes(
        type=ProgramType.SK_LOOKUP,
        name="lookup",
        instructions=asm.returning(1),
        expected_attach=AttachType.SK_LOOKUP,
    )
    with (
        Program.load(kernel, attributes) as program,
        Program.load(kernel, attributes) as other,
        Handle(kernel, NetnsTarget().link(kernel, program.fd)) as link,
    ):
        kernel.link_detach(link.fd)
        assert kernel.link_info(link.fd).target == 0
        with pytest.raises(BpfError) as refused:
            kernel.link_update(link.fd, other.fd)
        assert refused.value.errno == errno.ENOLINK


def test_programs_know_their_maps(kernel: Kernel) -> None:
    with Map.create(kernel, MapSpec("m", MapKind.ARRAY, u32, u32)) as used:
        attributes = ProgramAttributes(
            type=ProgramType.SCHED_CLS, name="user", instructions=asm.load_map(1, used.fd) + asm.returning(0)
        )
        with Program.load(kernel, attributes) as program:
            assert program.info.map_ids == (used.id,)
            assert program.info.instructions == 4


def test_what_somebody_holds_is_closed_when_he_is_done(kernel: Kernel) -> None:
    spec = MapSpec("held", MapKind.HASH, u32, u32, 4)
    table = Map.create(kernel, spec)
    with table.held(), table.held():
        table.close()
        table.update(1, 2)
        assert table.lookup(1) == 2
    assert table.closed
