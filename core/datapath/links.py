"""Links: programs attached to hooks, pinned, replaced in one step, adopted after a restart.

Every attachment has a name; its pin is what makes it ours. Only what is pinned in the agent's own folder is ever replaced
or removed, so the hooks can be shared with strangers. No file descriptors stay open: the pins hold the links.
"""

from __future__ import annotations

import errno
from collections.abc import Collection
from typing import Protocol, TypeAlias

from attrs import frozen

from axoneme.core.datapath.clsact import ClsactTarget
from axoneme.core.datapath.kernel import BpfError, Filter, Kernel, LinkInfo, Order, Place, Program
from axoneme.core.datapath.pins import Pins, handle
from axoneme.core.datapath.tcx import TcxTarget
from axoneme.core.datapath.uapi import AttachType

#: The link is there, but what it was attached to is gone.
_DEFUNCT = frozenset({errno.ENOLINK, errno.ENODEV, errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP})


class LinkTarget(Protocol):
    """Something that a link attaches to: `TcxTarget`, `XdpTarget`, `CgroupTarget`, `NetnsTarget`."""

    def link(self, kernel: Kernel, program_fd: int) -> int: ...
    def holds(self, info: LinkInfo) -> bool: ...


Target: TypeAlias = LinkTarget | ClsactTarget


@frozen(kw_only=True)
class Attachment:
    """What `Links.attach` did.

    :ivar created: there was nothing of that name at that target before.
    :ivar replaced: another program was there, and gave way in one step.
    """

    name: str
    target: Target
    program_id: int
    created: bool = False
    replaced: bool = False


def classifier(
    ifindex: int, attach: AttachType, *, tcx: bool, order: Order | None = None
) -> TcxTarget | ClsactTarget:
    """The target for a classifier program at an interface: TCX, or the fallback."""
    if tcx:
        return TcxTarget(ifindex=ifindex, attach=attach, order=order or Order(Place.FIRST))
    return ClsactTarget(ifindex=ifindex, attach=attach)


class Links:
    """The attachments of one agent."""

    def __init__(self, pins: Pins) -> None:
        self.pins = pins
        self.kernel = pins.kernel

    def attach(self, name: str, target: Target, program: Program) -> Attachment:
        """Makes `program` run at `target` under this name, whatever was there before under the same name.

        Where the name is attached to the same target already, its program is replaced in one step. Elsewhere, the new
        attachment is made first and the old one removed then.

        :raises BpfError: when the kernel refuses; what was attached before still is.
        """
        if isinstance(target, ClsactTarget):
            done = self._attach_filter(name, target, program)
            self._detach_link(name)
            self._detach_filters(name, but=target)
        else:
            done = self._attach_link(name, target, program)
            self._detach_filters(name)
        return done

    def detach(self, name: str) -> bool:
        """Removes the attachment of that name. False when there is none."""
        filters = self._detach_filters(name)
        return self._detach_link(name) or filters

    def names(self) -> list[str]:
        """All attachments, those included that an earlier run of the agent made."""
        return sorted({*self.pins.names("links"), *self.pins.names("filters")})

    def prune(self, wanted: Collection[str]) -> list[str]:
        """Removes all attachments but these, and says which."""
        unwanted = [name for name in self.names() if name not in wanted]
        for name in unwanted:
            self.detach(name)
        return unwanted

    def info(self, name: str) -> LinkInfo | Filter | None:
        """What the kernel knows of an attachment. None when it is gone."""
        with_pin = handle(self.pins, self.pins.path("links", name))
        if with_pin is not None:
            with with_pin as link:
                return self.kernel.link_info(link.fd)
        found = (target.find(self.kernel, name) for target in self._filters(name))
        return next((each for each in found if each is not None), None)

    # Links.

    def _attach_link(self, name: str, target: LinkTarget, program: Program) -> Attachment:
        present = handle(self.pins, self.pins.path("links", name))
        if present is None:
            return self._new_link(name, target, program)
        with present as link:
            info = self.kernel.link_info(link.fd)
            if not target.holds(info):
                return self._move_link(name, target, program, link.fd)
            return self._update_link(name, target, program, link.fd, info)

    def _new_link(self, name: str, target: LinkTarget, program: Program) -> Attachment:
        path = self.pins.path("links", name)
        fd = target.link(self.kernel, program.fd)
        try:
            self.pins.put(path, fd)
        finally:
            self.kernel.close(fd)  # without a pin this also detaches
        return Attachment(name=name, target=target, program_id=program.info.id, created=True)

    def _update_link(
        self, name: str, target: LinkTarget, program: Program, fd: int, info: LinkInfo
    ) -> Attachment:
        wanted = program.info.id
        if info.program_id != wanted:
            self.kernel.link_update(fd, program.fd)
        return Attachment(name=name, target=target, program_id=wanted, replaced=info.program_id != wanted)

    def _move_link(self, name: str, target: LinkTarget, program: Program, old: int) -> Attachment:
        done = self._new_link(name, target, program)
        self._sever(old)
        return done

    def _sever(self, link_fd: int) -> None:
        try:
            self.kernel.link_detach(link_fd)
        except BpfError as error:
            if error.errno not in _DEFUNCT:
                raise

    def _detach_link(self, name: str) -> bool:
        path = self.pins.path("links", name)
        present = handle(self.pins, path)
        if present is None:
            return False
        with present as link:
            self._sever(link.fd)
        return self.pins.drop(path)

    # Filters.

    def _attach_filter(self, name: str, target: ClsactTarget, program: Program) -> Attachment:
        before, wanted = target.find(self.kernel, name), program.info.id
        if before is None or before.program_id != wanted:
            self.kernel.filter_replace(target.filter(name), program.fd)
        folder = self.pins.path("filters", name)
        self.kernel.ensure_bpffs(folder)
        self.pins.put(folder / target.key, program.fd)
        return Attachment(
            name=name,
            target=target,
            program_id=wanted,
            created=before is None,
            replaced=before is not None and before.program_id != wanted,
        )

    def _filters(self, name: str) -> list[ClsactTarget]:
        self.pins.path("filters", name)
        keys = self.pins.names(f"filters/{name}")
        return [target for key in keys if (target := ClsactTarget.parse(key)) is not None]

    def _detach_filters(self, name: str, but: ClsactTarget | None = None) -> bool:
        folder = self.pins.path("filters", name)
        unwanted = [target for target in self._filters(name) if target != but]
        for target in unwanted:
            self.kernel.filter_delete(target.filter(name))
            self.pins.drop(folder / target.key)
        if but is None and folder.exists():
            folder.rmdir()
        return bool(unwanted)
