"""Where programs go that belong to the node and neither to a workload nor to a device: its cgroups, its network namespace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from attrs import frozen

from axoneme.core.datapath.attach import ATTACH_POINTS, AttachPoint
from axoneme.core.datapath.cgroup import CgroupTarget
from axoneme.core.datapath.links import Target
from axoneme.core.datapath.netns import NetnsTarget
from axoneme.core.datapath.uapi import AttachType, ProgramType
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


def node_targets(points: Iterable[str], settings: DatapathSettings) -> list[Attached]:
    """The places of these attach points' programs, except for those that workloads, the hub and devices have.

    :raises KernelError: there is no cgroup of version 2 for a program that needs one.
    """
    return [each for name in points for each in _targets(ATTACH_POINTS[name], settings)]


def _targets(point: AttachPoint, settings: DatapathSettings) -> Iterator[Attached]:
    if point.program in _CGROUP_PROGRAMS:
        target = CgroupTarget(path=settings.cgroup or cgroup_root(), attach=point.attach)
        yield Attached(name=f"{point.name}-cgroup", point=point.name, target=target)
    elif point.attach is AttachType.SK_LOOKUP:
        yield Attached(name=f"{point.name}-netns", point=point.name, target=NetnsTarget())


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
