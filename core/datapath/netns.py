"""Network namespaces: socket lookup programs as links (kernel 5.9)."""

from __future__ import annotations

import os
from pathlib import Path

from attrs import frozen

from axoneme.core.datapath.cgroup import open_path
from axoneme.core.datapath.kernel import Kernel, LinkInfo
from axoneme.core.datapath.uapi import AttachType, LinkType


@frozen(kw_only=True)
class NetnsTarget:
    """A network namespace by its path: `/run/netns/NAME`, `/proc/PID/ns/net`."""

    path: Path = Path("/proc/self/ns/net")
    attach: AttachType = AttachType.SK_LOOKUP

    def link(self, kernel: Kernel, program_fd: int) -> int:
        """A new link's fd. Raises `BpfError`; ENOENT when the namespace is gone."""
        namespace = open_path(self.path)
        try:
            return kernel.link_create(program_fd, namespace, self.attach)
        finally:
            os.close(namespace)

    def holds(self, info: LinkInfo) -> bool:
        """Whether this link is at this target: a namespace's id is its inode."""
        try:
            inode = self.path.stat().st_ino
        except OSError:
            return False
        return (info.type, info.target, info.attach) == (LinkType.NETNS, inode, self.attach)

    def __str__(self) -> str:
        return f"{self.attach.name} of {self.path}"
