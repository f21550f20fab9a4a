"""Classifier filters on a clsact qdisc: the attachment for kernels below 6.6, which have no TCX.

A filter is found again by its priority, handle and name; the kernel replaces the program behind the same priority and
handle in one step, so no packet sees a gap. Filters have no pins: they live as long as their interface.

This module is about pyroute2 as a whole, and is itself imported only when a filter is wanted.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from pyroute2 import IPRoute  # noqa: TID253  (see the module's docstring)
from pyroute2.netlink.exceptions import NetlinkError  # noqa: TID253

from axoneme.core.datapath.kernel import BpfError, Filter
from axoneme.core.datapath.uapi import AttachType

_PARENTS = {AttachType.TCX_INGRESS: 0xFFFFFFF2, AttachType.TCX_EGRESS: 0xFFFFFFF3}
_ETH_P_ALL = 0x0003
_TCA_BPF_ID = 11
_ATTRIBUTE = struct.Struct("=HHI")
_MISSING = frozenset({errno.ENOENT, errno.ENODEV, errno.EINVAL})


_T = TypeVar("_T")


class FilterSocket:
    """One netlink socket for all filters of this process. Safe to use from several threads.

    pyroute2 runs an event loop of its own under its synchronous calls, which a thread with a running loop cannot have.
    So the socket lives in a thread of its own, and callers wait for it: some hundred microseconds a call. It stays in the
    network namespace in which it was made.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "axoneme-filters")
        self._route = self._thread.submit(IPRoute).result()
        self._made: set[int] = set()

    def close(self) -> None:
        self._thread.submit(self._route.close).result()
        self._thread.shutdown()

    def _run(self, call: Callable[..., _T], *arguments: Any) -> _T:
        return self._thread.submit(call, *arguments).result()

    def replace(self, wanted: Filter, program_fd: int) -> None:
        """Adds the filter or replaces the program of the one with this priority and handle.

        :raises BpfError: EEXIST when a filter of another name is in that place; ENODEV without the interface.
        """
        self._run(self._replace, wanted, program_fd)

    def _replace(self, wanted: Filter, program_fd: int) -> None:
        self._make_qdisc(wanted.ifindex)
        for present in self._dump(wanted.ifindex, wanted.attach):
            if _same_place(present, wanted) and present.name != wanted.name:
                raise BpfError(f"attach filter {wanted.name} in the place of {present.name!r}", errno.EEXIST)
        self._tc("replace-filter", wanted, fd=program_fd, name=wanted.name, direct_action=True)

    def delete(self, unwanted: Filter) -> bool:
        """False when the filter is not there, or is another's. Removes the qdisc if it was made here and is empty now."""
        return self._run(self._delete, unwanted)

    def _delete(self, unwanted: Filter) -> bool:
        present = self._dump(unwanted.ifindex, unwanted.attach)
        if not any(_same_place(each, unwanted) and each.name == unwanted.name for each in present):
            return False
        self._tc("del-filter", unwanted)
        self._remove_qdisc(unwanted.ifindex)
        return True

    def filters(self, ifindex: int, attach: AttachType) -> list[Filter]:
        """The program filters of that side, strangers' included, in running order."""
        return self._run(self._dump, ifindex, attach)

    def _tc(self, command: str, which: Filter, **options: Any) -> None:
        try:
            self._route.tc(
                command,
                "bpf",
                which.ifindex,
                which.handle,
                parent=_PARENTS[which.attach],
                prio=which.priority,
                protocol=_ETH_P_ALL,
                **options,
            )
        except NetlinkError as error:
            raise BpfError(f"{command} {which.name} at interface {which.ifindex}", error.code) from None

    def _make_qdisc(self, ifindex: int) -> None:
        try:
            self._route.tc("add", "clsact", ifindex)
            self._made.add(ifindex)
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise BpfError(f"add clsact qdisc to interface {ifindex}", error.code) from None

    def _remove_qdisc(self, ifindex: int) -> None:
        if ifindex in self._made and not any(self._dump(ifindex, attach) for attach in _PARENTS):
            self._route.tc("del", "clsact", ifindex)
            self._made.discard(ifindex)

    def _dump(self, ifindex: int, attach: AttachType) -> list[Filter]:
        try:
            messages = list(self._route.get_filters(index=ifindex, parent=_PARENTS[attach]))
        except NetlinkError as error:
            if error.code in _MISSING:  # no such interface, or no such qdisc
                return []
            raise BpfError(f"list filters of interface {ifindex}", error.code) from None
        return [_filter(message, ifindex, attach) for message in messages if _is_program(message)]


def _is_program(message: Any) -> bool:
    # Each chain of filters is announced by a message without a handle.
    return bool(message.get_attr("TCA_KIND") == "bpf" and message["handle"] != 0)


def _filter(message: Any, ifindex: int, attach: AttachType) -> Filter:
    options = message.get_attr("TCA_OPTIONS")
    return Filter(
        ifindex=ifindex,
        attach=attach,
        priority=message["info"] >> 16,
        handle=message["handle"],
        name=options.get_attr("TCA_BPF_NAME") or "",
        program_id=_program_id(options),
    )


def _program_id(options: Any) -> int:
    # pyroute2 does not know TCA_BPF_ID, and keeps what it does not know as raw bytes.
    for name, raw in options["attrs"]:
        if name == "UNKNOWN":
            _, kind, number = _ATTRIBUTE.unpack_from(raw.data, raw.offset)
            if kind == _TCA_BPF_ID:
                return int(number)
    return 0


def _same_place(one: Filter, other: Filter) -> bool:
    return (one.priority, one.handle) == (other.priority, other.handle)
