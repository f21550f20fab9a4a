"""Attachments: made, replaced in one step, adopted, moved, removed; strangers stay."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from axoneme.core.datapath import asm
from axoneme.core.datapath.cgroup import CgroupTarget
from axoneme.core.datapath.clsact import ClsactTarget
from axoneme.core.datapath.kernel import (
    BpfError,
    Filter,
    Handle,
    Kernel,
    LinkInfo,
    Order,
    Place,
    Program,
    ProgramAttributes,
)
from axoneme.core.datapath.links import Links, Target, classifier
from axoneme.core.datapath.netns import NetnsTarget
from axoneme.core.datapath.pins import Pins
from axoneme.core.datapath.tcx import TcxTarget
from axoneme.core.datapath.uapi import AttachType, ProgramType
from axoneme.core.datapath.xdp import XdpMode, XdpTarget
from axoneme.core.testing.fake_kernel import FakeKernel

INGRESS, EGRESS = AttachType.TCX_INGRESS, AttachType.TCX_EGRESS
Load = Callable[..., Program]
KINDS = pytest.mark.parametrize("tcx", [True, False], ids=["tcx", "clsact"])


@pytest.fixture
def load(kernel: Kernel) -> Iterator[Load]:
    with ExitStack() as stack:

        def load_program(
            type_: ProgramType = ProgramType.SCHED_CLS, attach: AttachType | None = None, returns: int = 0
        ) -> Program:
            attributes = ProgramAttributes(
                type=type_, name="test", instructions=asm.returning(returns), expected_attach=attach
            )
            return stack.enter_context(Program.load(kernel, attributes))

        yield load_program


@pytest.fixture
def links(pins: Pins) -> Links:
    return Links(pins)


def programs_at(kernel: Kernel, ifindex: int, attach: AttachType = INGRESS) -> list[int]:
    filters = [each.program_id for each in kernel.filters(ifindex, attach)]
    return [*kernel.hook_state(ifindex, attach).program_ids, *filters]


@KINDS
def test_attach_replace_detach(links: Links, load: Load, interface: Callable[[], int], tcx: bool) -> None:
    target = classifier(interface(), INGRESS, tcx=tcx)
    first, second = load(), load()
    done = links.attach("from_workload", target, first)
    assert (done.created, done.replaced, done.program_id) == (True, False, first.info.id)
    done = links.attach("from_workload", target, second)
    assert (done.created, done.replaced) == (False, True)
    assert programs_at(links.kernel, target.ifindex) == [second.info.id]
    assert links.names() == ["from_workload"]
    assert links.detach("from_workload")
    assert programs_at(links.kernel, target.ifindex) == []
    assert not links.detach("from_workload")


@KINDS
def test_the_same_program_again_changes_nothing(
    links: Links, load: Load, interface: Callable[[], int], tcx: bool
) -> None:
    target, program = classifier(interface(), EGRESS, tcx=tcx), load()
    links.attach("to_workload", target, program)
    done = links.attach("to_workload", target, program)
    assert (done.created, done.replaced) == (False, False)


@KINDS
def test_attachments_outlive_the_agent(
    links: Links, load: Load, interface: Callable[[], int], tcx: bool
) -> None:
    target, program = classifier(interface(), INGRESS, tcx=tcx), load()
    links.attach("a", target, program)
    links.attach("b", classifier(target.ifindex, EGRESS, tcx=tcx), program)
    program.close()
    after_restart = Links(Pins(links.kernel, links.pins.root))
    assert after_restart.names() == ["a", "b"]
    assert after_restart.info("a") is not None
    replacement = load()
    assert after_restart.attach("a", target, replacement).replaced
    assert after_restart.prune(["a"]) == ["b"]
    assert programs_at(links.kernel, target.ifindex, EGRESS) == []
    assert programs_at(links.kernel, target.ifindex) == [replacement.info.id]


@KINDS
def test_a_name_moves_to_another_interface(
    links: Links,
    load: Load,
    interface: Callable[[], int],
    remove_interface: Callable[[int], None],
    tcx: bool,
) -> None:
    old, new, newest = interface(), interface(), interface()
    program = load()
    links.attach("a", classifier(old, INGRESS, tcx=tcx), program)
    assert links.attach("a", classifier(new, INGRESS, tcx=tcx), program).created
    assert programs_at(links.kernel, old) == []
    remove_interface(new)
    assert links.attach("a", classifier(newest, INGRESS, tcx=tcx), program).created
    assert programs_at(links.kernel, newest) == [program.info.id]
    assert links.names() == ["a"]


@KINDS
def test_the_way_of_attaching_can_change(
    links: Links, load: Load, interface: Callable[[], int], tcx: bool
) -> None:
    ifindex, program = interface(), load()
    links.attach("a", classifier(ifindex, INGRESS, tcx=tcx), program)
    links.attach("a", classifier(ifindex, INGRESS, tcx=not tcx), program)
    assert programs_at(links.kernel, ifindex) == [program.info.id]
    assert links.names() == ["a"]


@KINDS
def test_what_is_gone_with_its_interface_can_be_detached(
    links: Links,
    load: Load,
    interface: Callable[[], int],
    remove_interface: Callable[[int], None],
    tcx: bool,
) -> None:
    ifindex = interface()
    links.attach("a", classifier(ifindex, INGRESS, tcx=tcx), load())
    remove_interface(ifindex)
    assert links.detach("a")
    assert links.names() == []


@KINDS
def test_no_such_interface(links: Links, load: Load, interface: Callable[[], int], tcx: bool) -> None:
    interface()
    with pytest.raises(BpfError) as refused:
        links.attach("a", classifier(2**30, INGRESS, tcx=tcx), load())
    assert refused.value.errno == errno.ENODEV
    assert links.names() == []


def test_strangers_share_the_hook_and_stay(
    links: Links, load: Load, interface: Callable[[], int], kernel: Kernel
) -> None:
    ifindex = interface()
    stranger = load()
    with Handle(kernel, kernel.link_create(stranger.fd, ifindex, INGRESS)) as link:
        links.attach("first", TcxTarget(ifindex=ifindex, attach=INGRESS), load())
        links.attach("last", TcxTarget(ifindex=ifindex, attach=INGRESS, order=Order(Place.LAST)), load())
        number = kernel.link_info(link.fd).id
        before = TcxTarget(ifindex=ifindex, attach=INGRESS, order=Order(Place.BEFORE, number))
        links.attach("before", before, load())
        state = kernel.hook_state(ifindex, INGRESS)
        named = {_info(links, name).id: name for name in links.names()} | {number: "stranger"}
        assert [named[each] for each in state.link_ids] == ["first", "before", "stranger", "last"]
        links.prune(())
        assert programs_at(kernel, ifindex) == [stranger.info.id]


def test_a_program_is_only_once_at_a_hook(links: Links, load: Load, interface: Callable[[], int]) -> None:
    target, program = TcxTarget(ifindex=interface(), attach=INGRESS), load()
    links.attach("a", target, program)
    with pytest.raises(BpfError) as refused:
        links.attach("b", target, program)
    assert refused.value.errno == errno.EEXIST


def _info(links: Links, name: str) -> LinkInfo:
    info = links.info(name)
    assert isinstance(info, LinkInfo)
    return info


def test_a_stranger_in_the_place_of_our_filter(
    links: Links, load: Load, interface: Callable[[], int], kernel: Kernel
) -> None:
    target = ClsactTarget(ifindex=interface(), attach=INGRESS)
    stranger = Filter(
        ifindex=target.ifindex, attach=INGRESS, priority=target.priority, handle=target.handle, name="other"
    )
    kernel.filter_replace(stranger, load().fd)
    with pytest.raises(BpfError) as refused:
        links.attach("a", target, load())
    assert refused.value.errno == errno.EEXIST
    assert not kernel.filter_delete(target.filter("a"))
    assert [each.name for each in kernel.filters(target.ifindex, INGRESS)] == ["other"]
    assert kernel.filter_delete(stranger)


def test_filters_are_listed_in_running_order(
    links: Links, load: Load, interface: Callable[[], int], kernel: Kernel
) -> None:
    """By priority, and within one the newest first."""
    ifindex = interface()
    for handle, priority in ((9, 2), (3, 1), (5, 1), (4, 1)):
        stranger = Filter(
            ifindex=ifindex, attach=INGRESS, priority=priority, handle=handle, name=f"s{handle}"
        )
        kernel.filter_replace(stranger, load().fd)
    links.attach("a", ClsactTarget(ifindex=ifindex, attach=INGRESS), load())
    names = [each.name for each in kernel.filters(ifindex, INGRESS)]
    assert names == ["axoneme:a", "s4", "s5", "s3", "s9"]
    links.prune(())
    assert len(kernel.filters(ifindex, INGRESS)) == 4


@pytest.mark.parametrize("mode", [XdpMode.AUTO, XdpMode.GENERIC])
def test_xdp(links: Links, load: Load, interface: Callable[[], int], mode: XdpMode) -> None:
    ifindex = interface()
    first, second = (load(ProgramType.XDP, AttachType.XDP, 2) for _ in range(2))
    links.attach("xdp", XdpTarget(ifindex=ifindex, mode=mode), first)
    assert links.attach("xdp", XdpTarget(ifindex=ifindex, mode=mode), second).replaced
    with pytest.raises(BpfError) as occupied:
        links.attach("other", XdpTarget(ifindex=ifindex, mode=mode), first)
    assert occupied.value.errno == errno.EBUSY


def test_cgroup(links: Links, load: Load, cgroup: Path, kernel: Kernel) -> None:
    first, second = (load(ProgramType.CGROUP_SOCK_ADDR, AttachType.CGROUP_INET4_CONNECT, 1) for _ in range(2))
    target = CgroupTarget(path=cgroup, attach=AttachType.CGROUP_INET4_CONNECT)
    _attach_twice(links, target, first, second)


def test_netns(links: Links, load: Load, kernel: Kernel) -> None:
    first, second = (load(ProgramType.SK_LOOKUP, AttachType.SK_LOOKUP, 1) for _ in range(2))
    _attach_twice(links, NetnsTarget(), first, second)


def _attach_twice(links: Links, target: Target, first: Program, second: Program) -> None:
    assert links.attach("a", target, first).created
    assert links.attach("a", target, second).replaced
    assert not links.attach("a", target, second).replaced
    info = links.info("a")
    assert isinstance(info, LinkInfo)
    assert info.program_id == second.info.id
    assert links.detach("a")


def test_a_missing_cgroup(links: Links, load: Load, tmp_path: Path) -> None:
    program = load(ProgramType.CGROUP_SOCK_ADDR, AttachType.CGROUP_INET4_CONNECT, 1)
    target = CgroupTarget(path=tmp_path / "gone", attach=AttachType.CGROUP_INET4_CONNECT)
    with pytest.raises(BpfError, match="No such file"):
        links.attach("a", target, program)


@pytest.mark.parametrize("tcx", [True, False])
@pytest.mark.parametrize("method", ["link_create", "link_update", "pin", "filter_replace", "program_info"])
def test_after_a_failure_the_old_one_still_runs_and_the_next_try_succeeds(
    tmp_path: Path, method: str, tcx: bool
) -> None:
    kernel = FakeKernel()
    pins = Pins(kernel, tmp_path)
    pins.prepare()
    links = Links(pins)
    programs = [
        Program.load(
            kernel, ProgramAttributes(type=ProgramType.SCHED_CLS, name="t", instructions=asm.returning(n))
        )
        for n in (1, 2)
    ]
    old, new = (program.info.id for program in programs)
    links.attach("a", classifier(1, INGRESS, tcx=tcx), programs[0])
    kernel.fail(method, errno.ENOMEM)
    moved = classifier(2, INGRESS, tcx=tcx)
    for target, place in ((classifier(1, INGRESS, tcx=tcx), 1), (moved, 2)):
        try:
            links.attach("a", target, programs[1])
        except BpfError:
            assert programs_at(kernel, 1) in ([old], [new])
        links.attach("a", target, programs[1])
        assert programs_at(kernel, place) == [new]
    assert programs_at(kernel, 1) == []
    assert kernel.open_fds == len(programs)
