"""The operations of bpf(2): the only door to the real kernel.

Attributes are laid out as in `linux/bpf.h` (see `structs`). Attributes that an older kernel does not know are zero here unless
asked for, and the kernel takes zeros that it does not know.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import threading
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from axoneme.core.datapath import btf, object_info, structs
from axoneme.core.datapath.bpf_call import BpfCall, lift_memlock
from axoneme.core.datapath.bpffs import ensure_folder
from axoneme.core.datapath.kernel import (
    BpfError,
    Buffer,
    Filter,
    HookState,
    LinkInfo,
    MapAttributes,
    MapFull,
    MapInfo,
    ObjectType,
    Order,
    Place,
    ProgramAttributes,
    ProgramInfo,
    RingMemory,
    TestRun,
    VerifierRejection,
)
from axoneme.core.datapath.uapi import (
    OBJ_NAME_LEN,
    AttachFlag,
    AttachType,
    Command,
    MapKind,
)

if TYPE_CHECKING:
    from axoneme.core.datapath.filter_socket import FilterSocket

_FULL = frozenset({errno.E2BIG, errno.ENOSPC})
_LOG_SIZES = (1 << 16, 1 << 20, 1 << 24)
_TCX = frozenset({AttachType.TCX_INGRESS, AttachType.TCX_EGRESS})
_CURSOR_SIZE = 256  # a bucket number for hashes, a key for arrays and tries: those here are smaller by far


def possible_cpus(path: Path = Path("/sys/devices/system/cpu/possible")) -> int:
    """How many values an entry of a per-CPU map has: the highest possible CPU's number plus one."""
    last = path.read_text().strip().split(",")[-1]
    return int(last.split("-")[-1]) + 1


class SyscallKernel:
    """The running kernel."""

    def __init__(self) -> None:
        self._bpf = BpfCall()
        self._checked = self._bpf.checked
        self._tc: FilterSocket | None = None
        self._tc_lock = threading.Lock()
        lift_memlock()

    @cached_property
    def possible_cpus(self) -> int:
        return possible_cpus()

    def close(self, fd: int) -> None:
        os.close(fd)

    # Maps.

    def map_create(self, attributes: MapAttributes) -> int:
        attr = structs.MapCreateAttr(
            map_type=attributes.kind,
            key_size=attributes.key_size,
            value_size=attributes.value_size,
            max_entries=attributes.max_entries,
            map_flags=attributes.flags,
            inner_map_fd=attributes.inner_fd,
            map_name=attributes.name.encode(),
        )
        if attributes.kind is MapKind.SK_STORAGE:
            return self._create_described(attr, attributes)
        return self._checked(Command.MAP_CREATE, attr, f"create map {attributes.name}")

    def _create_described(self, attr: structs.MapCreateAttr, attributes: MapAttributes) -> int:
        """Creates a map of a kind for which the kernel wants to be told types."""
        described = btf.of_map(attributes.value_size)
        load = structs.BtfLoadAttr(btf=described, btf_size=len(described))
        attr.btf_fd = self._checked(Command.BTF_LOAD, load, f"describe map {attributes.name}")
        attr.btf_key_type_id, attr.btf_value_type_id = btf.KEY, btf.VALUE
        try:
            return self._checked(Command.MAP_CREATE, attr, f"create map {attributes.name}")
        finally:
            os.close(attr.btf_fd)

    def map_lookup(self, fd: int, key: bytes, value_size: int) -> bytes | None:
        value = ctypes.create_string_buffer(value_size)
        attr = structs.MapElementAttr(fd, key, ctypes.addressof(value), 0)
        result = self._bpf(Command.MAP_LOOKUP_ELEM, attr, brief=True)
        if result >= 0:
            return value.raw
        if result == -errno.ENOENT:
            return None
        raise BpfError("look up", -result)

    def map_lookup_each(self, fd: int, keys: Buffer, values: Buffer) -> Buffer:
        found = np.zeros(len(keys), np.bool_)
        attr = structs.MapElementAtAttr(fd, keys.ctypes.data, values.ctypes.data, 0)
        for index in range(len(keys)):
            result = self._bpf(Command.MAP_LOOKUP_ELEM, attr, brief=True)
            found[index] = result >= 0
            if result < 0 and result != -errno.ENOENT:
                raise BpfError("look up", -result)
            attr.key += keys.itemsize
            attr.value += values.itemsize
        return found

    def map_update(self, fd: int, key: bytes, value: bytes, flags: int = 0) -> None:
        attr = structs.MapElementAttr(fd, key, _address(value), flags)
        result = self._bpf(Command.MAP_UPDATE_ELEM, attr, brief=True)
        if -result in _FULL:
            raise MapFull("update", -result)
        if result < 0:
            raise BpfError("update", -result)

    def map_delete(self, fd: int, key: bytes) -> bool:
        result = self._bpf(Command.MAP_DELETE_ELEM, structs.MapElementAttr(fd, key, None, 0), brief=True)
        if result < 0 and result != -errno.ENOENT:
            raise BpfError("delete", -result)
        return result >= 0

    def map_next_key(self, fd: int, key: bytes | None, key_size: int) -> bytes | None:
        following = ctypes.create_string_buffer(key_size)
        attr = structs.MapElementAttr(fd, key, ctypes.addressof(following), 0)
        result = self._bpf(Command.MAP_GET_NEXT_KEY, attr, brief=True)
        if result < 0 and result != -errno.ENOENT:
            raise BpfError("get next key", -result)
        return following.raw if result >= 0 else None

    def map_lookup_batch(
        self, fd: int, cursor: bytes | None, keys: Buffer, values: Buffer
    ) -> tuple[int, bytes | None]:
        following = ctypes.create_string_buffer(_CURSOR_SIZE)
        attr = _batch(fd, keys, values)
        attr.in_batch = None if cursor is None else _address(cursor)
        attr.out_batch = ctypes.addressof(following)
        result = self._bpf(Command.MAP_LOOKUP_BATCH, attr)
        if result == -errno.ENOENT:
            return attr.count, None
        if result < 0:
            raise BpfError("look up a batch", -result)
        return attr.count, following.raw

    def map_update_batch(self, fd: int, keys: Buffer, values: Buffer) -> None:
        attr = _batch(fd, keys, values)
        result = self._bpf(Command.MAP_UPDATE_BATCH, attr) if len(keys) else 0
        if -result in _FULL:
            raise MapFull("update a batch", -result, written=attr.count)
        if result < 0:
            raise BpfError("update a batch", -result)

    def map_delete_batch(self, fd: int, keys: Buffer) -> int:
        attr = _batch(fd, keys)
        result = self._bpf(Command.MAP_DELETE_BATCH, attr) if len(keys) else 0
        if result < 0 and result != -errno.ENOENT:
            raise BpfError("delete a batch", -result)
        return int(attr.count)

    def map_freeze(self, fd: int) -> None:
        self._checked(Command.MAP_FREEZE, structs.OneNumberAttr(fd), "freeze map")

    def ring_memory(self, fd: int, size: int) -> RingMemory:
        page = mmap.PAGESIZE
        try:
            ours = mmap.mmap(fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=0)
            theirs = mmap.mmap(fd, page + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        except OSError as error:
            raise BpfError("map ring buffer into memory", error.errno or errno.EINVAL) from None
        return RingMemory(
            consumer=np.frombuffer(ours, np.uint64, 1),
            producer=np.frombuffer(theirs, np.uint64, 1),
            data=np.frombuffer(theirs, np.uint8, 2 * size, page),
        )

    # Programs.

    def program_load(self, attributes: ProgramAttributes) -> int:
        attr = _load_attr(attributes)
        result = self._load(attr)
        if result >= 0:
            return result
        if -result in (errno.EPERM, errno.ENOMEM):
            raise BpfError(f"load program {attributes.name}", -result)
        raise VerifierRejection(attributes.name, -result, self._verifier_log(attr))

    def _load(self, attr: structs.ProgramLoadAttr) -> int:
        for _ in range(5):  # a signal interrupts the verifier
            result = self._bpf(Command.PROG_LOAD, attr)
            if result != -errno.EAGAIN:
                break
        return result

    def _verifier_log(self, attr: structs.ProgramLoadAttr) -> str:
        """Loads once more, to hear why not; a log costs time, so the first attempt is made without."""
        attr.log_level = 1
        for size in _LOG_SIZES:
            log = ctypes.create_string_buffer(size)
            attr.log_buf, attr.log_size = ctypes.addressof(log), size
            result = self._load(attr)
            if result >= 0:  # what was missing before is there now; the caller has its error nevertheless
                os.close(result)
            if result != -errno.ENOSPC:
                break
        return log.value.decode(errors="replace")

    def program_test_run(
        self, fd: int, data: bytes, *, context: bytes = b"", repeat: int = 1, data_room: int | None = None
    ) -> TestRun:
        data_out = ctypes.create_string_buffer(len(data) + 256 if data_room is None else data_room)
        context_out = ctypes.create_string_buffer(len(context))
        attr = structs.TestRunAttr(
            prog_fd=fd,
            data_size_in=len(data),
            data_size_out=len(data_out),
            data_in=data or None,
            data_out=ctypes.addressof(data_out) if data else None,
            repeat=repeat,
            ctx_size_in=len(context),
            ctx_size_out=len(context),
            ctx_in=context or None,
            ctx_out=ctypes.addressof(context_out) if context else None,
        )
        if not data:
            attr.data_size_out = 0
        self._checked(Command.PROG_TEST_RUN, attr, "test-run program")
        return TestRun(
            retval=attr.retval,
            data=data_out.raw[: attr.data_size_out],
            context=context_out.raw[: attr.ctx_size_out],
            duration=attr.duration,
        )

    def enable_statistics(self) -> int:
        return self._checked(Command.ENABLE_STATS, structs.OneNumberAttr(0), "enable statistics")

    # Links.

    def link_create(
        self, program_fd: int, target: int, attach: AttachType, *, flags: int = 0, order: Order | None = None
    ) -> int:
        attr = structs.LinkCreateAttr(prog_fd=program_fd, target=target, attach_type=attach, flags=flags)
        if order is not None:
            attr.flags |= _order_flags(order)
            attr.relative = order.link_id
        return self._checked(Command.LINK_CREATE, attr, f"attach to {attach.name}")

    def link_update(self, link_fd: int, program_fd: int) -> None:
        self._checked(
            Command.LINK_UPDATE, structs.LinkUpdateAttr(link_fd, program_fd), "replace a link's program"
        )

    def link_detach(self, link_fd: int) -> None:
        self._checked(Command.LINK_DETACH, structs.OneNumberAttr(link_fd), "detach a link")

    def hook_state(self, target: int, attach: AttachType) -> HookState:
        programs, links = (ctypes.c_uint32 * 64)(), (ctypes.c_uint32 * 64)()
        attr = structs.QueryAttr(target=target, attach_type=attach, count=64)
        attr.prog_ids = ctypes.addressof(programs)
        if attach in _TCX:
            attr.link_ids = ctypes.addressof(links)
        self._checked(Command.PROG_QUERY, attr, f"query {attach.name}")
        return HookState(
            program_ids=tuple(programs[: attr.count]),
            link_ids=tuple(links[: attr.count]),
            revision=attr.revision,
        )

    # Classifier filters.

    def _filters(self) -> FilterSocket:
        with self._tc_lock:
            if self._tc is None:
                from axoneme.core.datapath.filter_socket import FilterSocket

                self._tc = FilterSocket()
            return self._tc

    def filter_replace(self, wanted: Filter, program_fd: int) -> None:
        self._filters().replace(wanted, program_fd)

    def filter_delete(self, unwanted: Filter) -> bool:
        return self._filters().delete(unwanted)

    def filters(self, ifindex: int, attach: AttachType) -> list[Filter]:
        return self._filters().filters(ifindex, attach)

    # Any object.

    def pin(self, fd: int, path: Path) -> None:
        attr = structs.ObjectAttr(os.fsencode(path), fd, 0)
        self._checked(Command.OBJ_PIN, attr, f"pin {path}")

    def open_pin(self, path: Path) -> int:
        attr = structs.ObjectAttr(os.fsencode(path), 0, 0)
        return self._checked(Command.OBJ_GET, attr, f"open {path}")

    def ensure_bpffs(self, folder: Path) -> None:
        ensure_folder(folder)

    def ids(self, kind: ObjectType) -> list[int]:
        found: list[int] = []
        attr = structs.IdAttr()
        while (result := self._bpf(_NEXT_ID[kind], attr)) >= 0:
            found.append(attr.next_id)
            attr.id = attr.next_id
        if result != -errno.ENOENT:
            raise BpfError(f"list {kind}s", -result)
        return found

    def open_id(self, kind: ObjectType, number: int) -> int | None:
        result = self._bpf(_OPEN_ID[kind], structs.IdAttr(number))
        if result < 0 and result != -errno.ENOENT:
            raise BpfError(f"open {kind} {number}", -result)
        return result if result >= 0 else None

    def map_info(self, fd: int) -> MapInfo:
        return object_info.of_map(self._bpf, fd)

    def program_info(self, fd: int) -> ProgramInfo:
        return object_info.of_program(self._bpf, fd)

    def link_info(self, fd: int) -> LinkInfo:
        return object_info.of_link(self._bpf, fd)


_NEXT_ID = {
    ObjectType.MAP: Command.MAP_GET_NEXT_ID,
    ObjectType.PROGRAM: Command.PROG_GET_NEXT_ID,
    ObjectType.LINK: Command.LINK_GET_NEXT_ID,
}
_OPEN_ID = {
    ObjectType.MAP: Command.MAP_GET_FD_BY_ID,
    ObjectType.PROGRAM: Command.PROG_GET_FD_BY_ID,
    ObjectType.LINK: Command.LINK_GET_FD_BY_ID,
}


def _address(data: bytes) -> ctypes.c_void_p:
    """Where the bytes are; the object made from it keeps them alive."""
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p)


def _batch(fd: int, keys: Buffer, values: Buffer | None = None) -> structs.MapBatchAttr:
    return structs.MapBatchAttr(
        keys=keys.ctypes.data,
        values=None if values is None else values.ctypes.data,
        count=len(keys),
        map_fd=fd,
    )


def _load_attr(attributes: ProgramAttributes) -> structs.ProgramLoadAttr:
    return structs.ProgramLoadAttr(
        prog_type=attributes.type,
        insn_cnt=len(attributes.instructions) // 8,
        insns=attributes.instructions,
        license=attributes.license.encode(),
        prog_name=attributes.name.encode()[: OBJ_NAME_LEN - 1],
        expected_attach_type=attributes.expected_attach or 0,
    )


def _order_flags(order: Order) -> int:
    """`BEFORE` with nothing to refer to means before all, `AFTER` after all."""
    flags = AttachFlag.BEFORE if order.place in (Place.FIRST, Place.BEFORE) else AttachFlag.AFTER
    return flags | AttachFlag.ID | AttachFlag.LINK if order.link_id else flags
