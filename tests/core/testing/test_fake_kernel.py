"""What the kernel in memory has and the running one has not: faults, rules, and a look inside."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from axoneme.core.datapath import asm
from axoneme.core.datapath.kernel import BpfError, Program, ProgramAttributes, VerifierRejection
from axoneme.core.datapath.layout import u32
from axoneme.core.datapath.maps import Map, MapSpec
from axoneme.core.datapath.uapi import AttachType, MapKind, ProgramType
from axoneme.core.testing.fake_kernel import FakeKernel

SPEC = MapSpec("numbers", MapKind.HASH, u32, u32, 8)


def classifier(name: str = "test") -> ProgramAttributes:
    return ProgramAttributes(type=ProgramType.SCHED_CLS, name=name, instructions=asm.returning(0))


def test_the_nth_call_fails_and_no_other() -> None:
    kernel = FakeKernel()
    kernel.fail("map_update", errno.ENOMEM, nth=2)
    with Map.create(kernel, SPEC) as numbers:
        numbers.update(1, 1)
        with pytest.raises(BpfError, match="made to fail") as failed:
            numbers.update(2, 2)
        assert failed.value.errno == errno.ENOMEM
        numbers.update(2, 2)
    assert kernel.calls["map_update"] == 3


def test_a_misspelt_fault_is_an_error() -> None:
    with pytest.raises(ValueError, match="no method 'map_updat'"):
        FakeKernel().fail("map_updat", errno.ENOMEM)


def test_programs_are_refused_by_a_rule() -> None:
    kernel = FakeKernel(refuse=lambda program: "R0 !read_ok" if program.name == "broken" else None)
    Program.load(kernel, classifier()).close()
    with pytest.raises(VerifierRejection) as refused:
        Program.load(kernel, classifier("broken"))
    assert refused.value.log == "R0 !read_ok"


def test_content_can_be_looked_at() -> None:
    kernel = FakeKernel()
    with Map.create(kernel, SPEC) as numbers:
        numbers.update(1, 2)
        assert kernel.map_named("numbers").entries == {u32.pack(1): u32.pack(2)}


def test_descriptors_are_counted() -> None:
    kernel = FakeKernel()
    numbers = Map.create(kernel, SPEC)
    assert kernel.open_fds == 1
    numbers.close()
    assert kernel.open_fds == 0
    with pytest.raises(BpfError, match="Bad file descriptor"):
        kernel.map_lookup(9999, b"1234", 4)


def test_a_pin_holds_a_link_and_its_loss_lets_go(tmp_path: Path) -> None:
    kernel = FakeKernel()
    with Program.load(kernel, classifier()) as program:
        link = kernel.link_create(program.fd, 3, AttachType.TCX_INGRESS)
        kernel.pin(link, tmp_path / "half")
        (tmp_path / "half").rename(tmp_path / "link")
        kernel.close(link)
        assert len(kernel.hook_state(3, AttachType.TCX_INGRESS).program_ids) == 1
        (tmp_path / "link").unlink()
        assert kernel.hook_state(3, AttachType.TCX_INGRESS).program_ids == ()


def test_pins_refuse_dots_as_the_kernel_does(tmp_path: Path) -> None:
    kernel = FakeKernel()
    with Map.create(kernel, SPEC) as numbers, pytest.raises(BpfError, match="EPERM"):
        kernel.pin(numbers.fd, tmp_path / "a.b")


def test_an_interface_takes_its_attachments_along() -> None:
    kernel = FakeKernel()
    with Program.load(kernel, classifier()) as program:
        link = kernel.link_create(program.fd, 3, AttachType.TCX_EGRESS)
        kernel.vanish(3)
        assert kernel.link_info(link).target == 0
        kernel.close(link)
