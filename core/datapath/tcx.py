"""TCX: classifier programs as links on an interface, shared with others in an order (kernel 6.6)."""

from __future__ import annotations

from attrs import frozen

from axoneme.core.datapath.kernel import Kernel, LinkInfo, Order, Place
from axoneme.core.datapath.uapi import AttachType, LinkType

_FIRST = Order(Place.FIRST)


@frozen(kw_only=True)
class TcxTarget:
    """One side of an interface.

    A program that returns -1 (`TCX_NEXT`) passes the packet to the next one at the hook; any other value ends the chain.

    :param attach: `TCX_INGRESS` (packets that the interface received) or `TCX_EGRESS`.
    :param order: first by default, so that no stranger's verdict goes past the mesh's.
    """

    ifindex: int
    attach: AttachType
    order: Order = _FIRST

    def link(self, kernel: Kernel, program_fd: int) -> int:
        """A new link's fd. Raises `BpfError`."""
        return kernel.link_create(program_fd, self.ifindex, self.attach, order=self.order)

    def holds(self, info: LinkInfo) -> bool:
        """Whether this link is at this target."""
        return (info.type, info.target, info.attach) == (LinkType.TCX, self.ifindex, self.attach)

    def __str__(self) -> str:
        return f"{self.attach.name} of interface {self.ifindex}"
