"""The programs at the node's devices, which come and go while the agent runs.

Nothing here ever fails as a whole: a device that goes in this moment, or whose hook a stranger has, is left out and told of.
What its programs would do for it is then done by the host's stack and the program in front of the workloads, or not at
all (services from outside); nothing is let through that is not decided.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterator, Mapping

from axoneme.core import logs
from axoneme.core.datapath.attach import ATTACH_POINTS
from axoneme.core.datapath.kernel import BpfError
from axoneme.core.datapath.links import Links, Target, classifier
from axoneme.core.datapath.loader import LoadedProgram
from axoneme.core.datapath.placement import Attached
from axoneme.core.datapath.uapi import ProgramType
from axoneme.core.datapath.xdp import DRIVER_REFUSES, XdpMode, XdpTarget
from axoneme.core.errors import KernelError
from axoneme.core.net.devices import Device

_log = logs.get(__name__)

#: Attach points at devices.
DEVICE_POINTS = frozenset({"from_network", "to_network", "xdp_network"})

_OCCUPIED = frozenset({errno.EBUSY, errno.EEXIST})


class Uplinks:
    """What is attached to devices.

    :ivar placed: by name.
    :ivar refused: what could not be attached, by place, in words.
    """

    def __init__(self, links: Links, tcx: Callable[[], bool]) -> None:
        self.placed: dict[str, Attached] = {}
        self.refused: dict[str, str] = {}
        self._links = links
        self._tcx = tcx
        self._devices: tuple[Device, ...] | None = None
        self._no_xdp: set[int] = set()

    @property
    def devices(self) -> tuple[Device, ...] | None:
        """None as long as nobody has said: then what an earlier agent attached stays as it is."""
        return self._devices

    def use(self, devices: Collection[Device]) -> None:
        """From the next `place` on these are the devices."""
        self._devices = tuple(devices)
        self._no_xdp &= {device.ifindex for device in devices}

    def place(self, programs: Mapping[str, LoadedProgram]) -> bool:
        """Attaches these programs where they belong, and detaches what is elsewhere. Returns whether anything changed."""
        if self._devices is None:
            return False
        without = len(self._no_xdp)
        changed = self._place(programs)
        if len(self._no_xdp) > without:  # then the others have none either
            changed |= self._place(programs)
        return changed

    def why_no_xdp(self) -> str:
        """Why there is no XDP at automatic devices, empty if there is.

        What comes in by one of them XDP may send out by any other, and only a card whose driver runs XDP itself takes that: a
        bridge, a VLAN, or a pair of which the other half is not prepared would lose it. So it is all of them or none. Nor is
        the kernel's generic XDP a thing to begin unasked: it copies large frames.
        """
        for device in self._devices or ():
            if not device.card:
                return f"what XDP sends may get lost at {device.name}"
            if device.ifindex in self._no_xdp:
                return f"the driver of {device.name} does not run XDP"
        return ""

    def kept(self) -> list[str]:
        """All that is attached to devices, by this agent or an earlier one of its name."""
        return [name for name in self._links.names() if name.partition("-")[0] in DEVICE_POINTS]

    def _place(self, programs: Mapping[str, LoadedProgram]) -> bool:
        self.refused = {}
        wanted = {each.name: (each, device) for each, device in self._targets(programs)}
        changed = [self._detach(name) for name in self.kept() if name not in wanted]
        self.placed = {name: each for name, (each, _) in wanted.items()}
        changed += [self._attach(each, device, programs) for each, device in wanted.values()]
        return any(changed)

    def _targets(self, programs: Mapping[str, LoadedProgram]) -> Iterator[tuple[Attached, Device]]:
        no_xdp = self.why_no_xdp()
        for point in programs.keys() & DEVICE_POINTS:
            xdp = ATTACH_POINTS[point].program is ProgramType.XDP
            for device in self._devices or ():
                if not xdp or device.named or not no_xdp:
                    yield (
                        Attached(
                            name=f"{point}-{device.ifindex}", point=point, target=self._target(point, device)
                        ),
                        device,
                    )

    def _target(self, point: str, device: Device) -> Target:
        attach = ATTACH_POINTS[point]
        if attach.program is ProgramType.XDP:
            mode = XdpMode.AUTO if device.named else XdpMode.NATIVE
            return XdpTarget(ifindex=device.ifindex, mode=mode)
        return classifier(device.ifindex, attach.attach, tcx=self._tcx())

    def _attach(self, attached: Attached, device: Device, programs: Mapping[str, LoadedProgram]) -> bool:
        try:
            done = self._links.attach(attached.name, attached.target, programs[attached.point].main)
        except KernelError as error:
            self._note(attached, device, error)
            return False
        return done.created or done.replaced

    def _note(self, attached: Attached, device: Device, error: KernelError) -> None:
        xdp = isinstance(attached.target, XdpTarget)
        number = error.errno if isinstance(error, BpfError) else 0
        del self.placed[attached.name]
        if xdp and not device.named and number in DRIVER_REFUSES:
            self._no_xdp.add(device.ifindex)
            return
        reason = str(error)
        if xdp and number in _OCCUPIED:
            reason = "another program has it; what XDP would do, the classifier does"
        self.refused[f"{'XDP' if xdp else attached.point} of {device.name}"] = reason
        _log.warning("not attached", device=device.name, point=attached.point, reason=str(error))

    def _detach(self, name: str) -> bool:
        try:
            return self._links.detach(name)
        except KernelError as error:
            _log.warning("not detached", attachment=name, reason=str(error))
            return False
