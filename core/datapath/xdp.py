"""XDP: programs as links on an interface, one for each, before the stack sees a packet (kernel 5.9)."""

from __future__ import annotations

import enum
import errno

from attrs import frozen

from axoneme.core.datapath.kernel import BpfError, Kernel, LinkInfo
from axoneme.core.datapath.uapi import AttachType, LinkType, XdpFlag


class XdpMode(enum.StrEnum):
    """`AUTO` takes the driver's own support where it has any, and works for this interface."""

    AUTO = "auto"
    NATIVE = "native"
    GENERIC = "generic"


_FLAGS = {XdpMode.AUTO: 0, XdpMode.NATIVE: XdpFlag.DRV_MODE, XdpMode.GENERIC: XdpFlag.SKB_MODE}
#: How a driver says that it does not run XDP, or not with this interface as it is.
DRIVER_REFUSES = frozenset({errno.EINVAL, errno.ERANGE, errno.EOPNOTSUPP, errno.ENOMEM})


@frozen(kw_only=True)
class XdpTarget:
    """An interface's receive side."""

    ifindex: int
    mode: XdpMode = XdpMode.AUTO

    def link(self, kernel: Kernel, program_fd: int) -> int:
        """A new link's fd. Raises `BpfError`; EBUSY when another program is there."""
        try:
            return kernel.link_create(program_fd, self.ifindex, AttachType.XDP, flags=_FLAGS[self.mode])
        except BpfError as error:
            if self.mode is not XdpMode.AUTO or error.errno not in DRIVER_REFUSES:
                raise
        return kernel.link_create(program_fd, self.ifindex, AttachType.XDP, flags=XdpFlag.SKB_MODE)

    def holds(self, info: LinkInfo) -> bool:
        """Whether this link is at this target."""
        return (info.type, info.target) == (LinkType.XDP, self.ifindex)

    def __str__(self) -> str:
        return f"XDP of interface {self.ifindex}"
