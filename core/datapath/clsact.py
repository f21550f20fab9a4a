"""Clsact: classifier programs as filters, for kernels without TCX. The netlink side is in `filter_socket`."""

from __future__ import annotations

from attrs import frozen

from axoneme.core.datapath.kernel import Filter, Kernel
from axoneme.core.datapath.uapi import AttachType

#: The first priority, with a handle of our own: it is shared with other bpf filters there, and those added last run first.
PRIORITY = 1
HANDLE = 0xA40
_PREFIX = "axoneme:"


@frozen(kw_only=True)
class ClsactTarget:
    """One side of an interface, `attach` as for TCX. A program that returns -1 passes the packet to the next filter."""

    ifindex: int
    attach: AttachType
    priority: int = PRIORITY
    handle: int = HANDLE

    def filter(self, name: str) -> Filter:
        """The filter that carries our program there."""
        return Filter(
            ifindex=self.ifindex,
            attach=self.attach,
            priority=self.priority,
            handle=self.handle,
            name=_PREFIX + name,
        )

    def find(self, kernel: Kernel, name: str) -> Filter | None:
        """The filter of that name that is there now."""
        ours = self.filter(name)
        for present in kernel.filters(self.ifindex, self.attach):
            if (present.priority, present.handle, present.name) == (ours.priority, ours.handle, ours.name):
                return present
        return None

    @property
    def key(self) -> str:
        """The target as a file name; `parse` reads it back."""
        return f"{self.ifindex}-{int(self.attach)}-{self.priority}-{self.handle}"

    @classmethod
    def parse(cls, key: str) -> ClsactTarget | None:
        """None when the text is no key."""
        parts = key.split("-")
        if len(parts) != 4 or not all(part.isdecimal() for part in parts):
            return None
        ifindex, attach, priority, handle = map(int, parts)
        return cls(ifindex=ifindex, attach=AttachType(attach), priority=priority, handle=handle)

    def __str__(self) -> str:
        return f"{self.attach.name} filter of interface {self.ifindex}"
