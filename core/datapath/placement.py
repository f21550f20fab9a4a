"""Where programs go that belong to the node and not to a workload: its devices, its cgroups, its network namespace."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

from attrs import frozen

from axoneme.core.datapath.attach import ATTACH_POINTS, AttachPoint
from axoneme.core.datapath.cgroup import CgroupTarget
from axoneme.core.datapath.links import Target, classifier
from axoneme.core.datapath.netns import NetnsTarget
from axoneme.core.datapath.uapi import AttachType, ProgramType
from axoneme.core.datapath.xdp import XdpTarget
from axoneme.core.errors import KernelError
from axoneme.core.settings import DatapathSettings

_CGROUP_PROGRAMS = (ProgramType.CGROUP_SOCK_ADDR, ProgramType.CGROUP_SKB)
_MOUNTS = Path("/proc/self/mounts")


@frozen(kw_only=True)
class Attached:
    """A place where an attach point's program is, or shall be."""

    name: str
    point: str
    target: Target


def device_indexes(settings: DatapathSettings) -> dict[str, int]:
    """The configured devices that there are, by name."""
    known = {name: index for index, name in socket.if_nameindex()}
    return {name: known[name] for name in settings.devices if name in known}


def node_targets(points: Iterable[str], settings: DatapathSettings, *, tcx: bool) -> list[Attached]:
    """The places of these attach points' programs, except for those that workloads and the hub have.

    :raises KernelError: there is no cgroup of version 2 for a program that needs one.
    """
    return [each for name in points for each in _targets(ATTACH_POINTS[name], settings, tcx)]


def _targets(point: AttachPoint, settings: DatapathSettings, tcx: bool) -> Iterator[Attached]:
    if point.program in _CGROUP_PROGRAMS:
        target = CgroupTarget(path=settings.cgroup or cgroup_root(), attach=point.attach)
        yield Attached(name=f"{point.name}-cgroup", point=point.name, target=target)
    elif point.attach is AttachType.SK_LOOKUP:
        yield Attached(name=f"{point.name}-netns", point=point.name, target=NetnsTarget())
    elif point.name.endswith("_network"):
        for ifindex in device_indexes(settings).values():
            yield Attached(
                name=f"{point.name}-{ifindex}", point=point.name, target=_device(point, ifindex, tcx)
            )


def _device(point: AttachPoint, ifindex: int, tcx: bool) -> Target:
    if point.program is ProgramType.XDP:
        return XdpTarget(ifindex=ifindex)
    return classifier(ifindex, point.attach, tcx=tcx)


def cgroup_root(mounts: Path = _MOUNTS) -> Path:
    """Where the hierarchy of cgroups of version 2 is mounted. Raises `KernelError` when it is not."""
    for line in mounts.read_text().splitlines():
        _, folder, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(folder.encode().decode("unicode_escape"))
    raise KernelError(
        "there are no cgroups of version 2",
        hint="mount -t cgroup2 none /sys/fs/cgroup, or set datapath.cgroup",
    )
