"""Probes: on the running kernel, and what is remembered of their answers."""

from __future__ import annotations

import errno
import platform

import pytest

from axoneme.core.datapath.kernel import BpfError, Kernel, ProgramAttributes
from axoneme.core.datapath.probes import FEATURES, LOOP, REQUIRED, TCX, Feature, Inconclusive, Probes
from axoneme.core.datapath.syscall import SyscallKernel
from axoneme.core.errors import KernelError
from axoneme.core.testing.fake_kernel import FakeKernel


@pytest.mark.kernel
@pytest.mark.parametrize("feature", FEATURES, ids=str)
def test_a_kernel_that_should_have_it_has_it(running_kernel: SyscallKernel, feature: Feature) -> None:
    """A failure, not a skip: either the probe is wrong or the kernel was built without."""
    release = tuple(map(int, platform.release().split("-")[0].split(".")[:2]))
    has = Probes(running_kernel).has(feature)
    assert has or release < feature.minimum


def test_conclusive_answers_are_remembered() -> None:
    asked: list[int] = []

    def probe(_kernel: Kernel) -> bool:
        asked.append(1)
        return False

    probes = Probes(FakeKernel())
    feature = Feature("thing", (6, 1), probe)
    assert not probes.has(feature)
    assert not probes.has(feature)
    assert len(asked) == 1


def test_inconclusive_ones_are_not() -> None:
    kernel = FakeKernel(refuse=lambda program: None)
    kernel.fail("map_create", errno.EPERM)
    probes = Probes(kernel)
    with pytest.raises(Inconclusive, match="cannot find out about ring buffer") as raised:
        probes.has(FEATURES[0])
    assert "root" in (raised.value.hint or "")
    assert probes.has(FEATURES[0])
    kernel.fail("map_create", errno.ENOMEM)
    assert probes.report()["longest-prefix map"] is None


def test_what_is_missing_is_named() -> None:
    kernel = FakeKernel()
    kernel.fail("map_create", errno.EINVAL)
    with pytest.raises(KernelError, match=r"lacks ring buffer \(Linux 5.8\)"):
        Probes(kernel).require(REQUIRED)


def test_an_unknown_helper_is_recognised_by_the_log() -> None:
    def refuse(program: ProgramAttributes) -> str:
        return "0: (85) call unknown#181\ninvalid func unknown#181\n"

    assert not Probes(FakeKernel(refuse=refuse)).has(LOOP)
    assert Probes(FakeKernel(refuse=lambda program: "R1 !read_ok\n")).has(LOOP)


@pytest.mark.parametrize(("number", "answer"), [(errno.ENODEV, True), (errno.EINVAL, False)])
def test_tcx_is_told_by_the_errno(number: int, answer: bool) -> None:
    kernel = FakeKernel()
    kernel.fail("link_create", number)
    assert Probes(kernel).has(TCX) is answer
    assert kernel.open_fds == 0


def test_other_errors_pass_through() -> None:
    def probe(_kernel: Kernel) -> bool:
        raise BpfError("probe", errno.ENOMEM)

    with pytest.raises(Inconclusive):
        Probes(FakeKernel()).has(Feature("thing", (6, 1), probe))
