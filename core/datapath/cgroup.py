"""Cgroups: programs as links on a cgroup, run for the sockets of all processes below it (kernel 5.7)."""

from __future__ import annotations

import os
from pathlib import Path

from attrs import frozen

from axoneme.core.datapath.kernel import BpfError, Kernel, LinkInfo
from axoneme.core.datapath.uapi import AttachType, LinkType


@frozen(kw_only=True)
class CgroupTarget:
    """A hook of one cgroup (version 2). Links there are shared with others; programs run in the order of attachment."""

    path: Path
    attach: AttachType

    def link(self, kernel: Kernel, program_fd: int) -> int:
        """A new link's fd. Raises `BpfError`; ENOENT when the cgroup is gone."""
        folder = open_path(self.path, os.O_DIRECTORY)
        try:
            return kernel.link_create(program_fd, folder, self.attach)
        finally:
            os.close(folder)

    def holds(self, info: LinkInfo) -> bool:
        """Whether this link is at this target: a cgroup's id is the inode of its folder."""
        try:
            inode = self.path.stat().st_ino
        except OSError:
            return False
        return (info.type, info.target, info.attach) == (LinkType.CGROUP, inode, self.attach)

    def __str__(self) -> str:
        return f"{self.attach.name} of cgroup {self.path}"


def open_path(path: Path, flags: int = 0) -> int:
    """An fd of what a program is attached to. Raises `BpfError`."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    except OSError as error:
        raise BpfError(f"open {path}", error.errno or 0) from None
