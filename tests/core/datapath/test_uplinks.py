"""Programs at devices: beside those of strangers, and without them where a driver or a stranger says no."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from axoneme.core.datapath import asm
from axoneme.core.datapath.composer import Constants
from axoneme.core.datapath.datapath import Datapath
from axoneme.core.datapath.kernel import Kernel, Order, Place, Program, ProgramAttributes
from axoneme.core.datapath.pins import Pins
from axoneme.core.datapath.uapi import AttachType, ProgramType
from axoneme.core.datapath.xdp import XdpTarget
from axoneme.core.net.devices import Device
from axoneme.core.net.devicewatch import health
from axoneme.core.records import Level, Phase, Runs, Stage
from axoneme.core.settings import DatapathSettings
from axoneme.core.testing.agent import FakeCompiler
from axoneme.core.testing.datapath import program_cache
from axoneme.core.testing.fake_kernel import FakeKernel

if TYPE_CHECKING:
    from axoneme.core.datapath.compiler import Compiler

SETTINGS = DatapathSettings(conntrack_entries=1024, event_buffer=1 << 16)

XDP = Stage(
    name="look",
    source="STAGE(look)\n{\n\treturn NEXT;\n}\n",
    attach=("xdp_network",),
    phase=Phase.TRANSLATE,
    runs=Runs.EVERY,
    devices=True,
)


def device(ifindex: int, *, named: bool = False, card: bool = True) -> Device:
    return Device(ifindex=ifindex, name=f"d{ifindex}", used=True, named=named, why="", card=card)


async def started(kernel: Kernel, pins: Pins, *devices: Device) -> Datapath:
    datapath = Datapath(
        kernel, root=pins.root, cache=program_cache(), settings=SETTINGS, constants=Constants()
    )
    if isinstance(kernel, FakeKernel):
        datapath.compiler = cast("Compiler", FakeCompiler())
    datapath.open()
    datapath.use_devices(devices)
    datapath.activate(await datapath.build(datapath.blueprint([("one", XDP)], [])))
    return datapath


@pytest.fixture
def fake() -> FakeKernel:
    return FakeKernel()


@pytest.fixture
def fake_pins(fake: FakeKernel, tmp_path: Path) -> Pins:
    return Pins(fake, tmp_path / "bpf")


@contextlib.contextmanager
def stranger(kernel: Kernel, kind: ProgramType, returns: int) -> Iterator[Program]:
    attributes = ProgramAttributes(type=kind, name="stranger", instructions=asm.returning(returns))
    with Program.load(kernel, attributes) as program:
        yield program


@pytest.mark.kernel
async def test_a_stranger_s_xdp_stays_and_the_classifier_serves(
    running_kernel: Kernel, real_pins: Pins, real_interface: Callable[[], int]
) -> None:
    index = real_interface()
    with stranger(running_kernel, ProgramType.XDP, 2) as program:
        link = XdpTarget(ifindex=index).link(running_kernel, program.fd)
        datapath = await started(running_kernel, real_pins, device(index, named=True))
        assert datapath.links.names() == [f"from_network-{index}"]
        said = health(["d*"], [device(index)], datapath.uplinks.refused)
        assert said.level is Level.DEGRADED
        assert said.reason == (
            f"XDP of d{index}: another program has it; what XDP would do, the classifier does"
        )
        assert running_kernel.link_info(link).program_id == program.info.id
        running_kernel.close(link)  # it was not pinned, so that it ends here
    datapath.use_devices([device(index, named=True)])
    assert datapath.links.names() == [f"from_network-{index}", f"xdp_network-{index}"]
    assert datapath.uplinks.refused == {}
    datapath.close()


@pytest.mark.kernel
async def test_a_stranger_s_classifier_runs_on_behind_ours(
    running_kernel: Kernel, real_pins: Pins, real_interface: Callable[[], int]
) -> None:
    index = real_interface()
    with stranger(running_kernel, ProgramType.SCHED_CLS, -1) as program:
        link = running_kernel.link_create(program.fd, index, AttachType.TCX_INGRESS, order=Order(Place.FIRST))
        datapath = await started(running_kernel, real_pins, device(index))
        ours = datapath.program("from_network")
        assert ours is not None

        def programs() -> list[int]:
            return list(running_kernel.hook_state(index, AttachType.TCX_INGRESS).program_ids)

        assert programs() == [ours.main.info.id, program.info.id]
        datapath.use_devices([])
        assert programs() == [program.info.id]
        running_kernel.close(link)
    datapath.close()


async def test_all_automatic_devices_have_xdp_or_none(fake: FakeKernel, fake_pins: Pins) -> None:
    """What comes in by one goes out by another, and there it must be taken."""
    datapath = await started(fake, fake_pins, device(2), device(3))
    both = ["from_network-2", "from_network-3", "xdp_network-2", "xdp_network-3"]
    assert datapath.links.names() == both
    assert datapath.uplinks.why_no_xdp() == ""
    datapath.use_devices([device(2), device(3), device(4, card=False)])
    assert datapath.links.names() == ["from_network-2", "from_network-3", "from_network-4"]
    assert datapath.uplinks.why_no_xdp() == "what XDP sends may get lost at d4"
    datapath.use_devices([device(2), device(3)])
    assert datapath.links.names() == both
    datapath.close()


async def test_a_driver_without_xdp_is_no_fault(fake: FakeKernel, fake_pins: Pins) -> None:
    datapath = await started(fake, fake_pins, device(2))
    create = fake.link_create

    def refusing(program: int, target: int, attach: AttachType, **more: object) -> int:
        if attach is AttachType.XDP and target == 3:
            fake.fail("link_create", errno.EOPNOTSUPP)
        return create(program, target, attach, **more)  # type: ignore[arg-type]

    fake.link_create = refusing  # type: ignore[method-assign]
    datapath.use_devices([device(2), device(3)])
    assert datapath.links.names() == ["from_network-2", "from_network-3"]
    assert datapath.uplinks.refused == {}
    assert datapath.uplinks.why_no_xdp() == "the driver of d3 does not run XDP"
    datapath.use_devices([device(2), device(4)])
    assert datapath.uplinks.why_no_xdp() == "", "the one that could not is gone"
    datapath.close()


async def test_a_device_that_goes_in_this_moment_takes_nothing_with_it(
    fake: FakeKernel, fake_pins: Pins
) -> None:
    datapath = await started(fake, fake_pins, device(2))
    fake.fail("link_create", errno.ENODEV)
    datapath.use_devices([device(2), device(3)])
    assert {"from_network-2", "xdp_network-2"} <= set(datapath.links.names())
    assert len(datapath.uplinks.refused) == 1
    datapath.use_devices([device(2)])
    assert datapath.uplinks.refused == {}
    datapath.close()
