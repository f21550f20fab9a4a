"""bpf(2) itself, by ctypes: the only door to the real kernel.

Attributes are laid out as in `linux/bpf.h` (see `uapi`). Attributes that an older kernel does not know are zero here unless
asked for, and the kernel takes zeros that it does not know.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import resource
import threading
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from axoneme.core.datapath import btf, uapi
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
from axoneme.core.datapath.uapi import AttachFlag, AttachType, Command, LinkType, MapKind, ProgramType
from axoneme.core.errors import KernelError

if TYPE_CHECKING:
    from axoneme.core.datapath.filter_socket import FilterSocket

_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "loongarch64": 280, "s390x": 351, "ppc64le": 361}
_FULL = frozenset({errno.E2BIG, errno.ENOSPC})
_LOG_SIZES = (1 << 16, 1 << 20, 1 << 24)
_TCX = frozenset({AttachType.TCX_INGRESS, AttachType.TCX_EGRESS})
_CURSOR_SIZE = 256  # a bucket number for hashes, a key for arrays and tries: those here are smaller by far

_T = TypeVar("_T", bound=ctypes.Structure)


def possible_cpus(path: Path = Path("/sys/devices/system/cpu/possible")) -> int:
    """How many values an entry of a per-CPU map has: the highest possible CPU's number plus one."""
    last = path.read_text().strip().split(",")[-1]
    return int(last.split("-")[-1]) + 1


class SyscallKernel:
    """The running kernel."""

    def __init__(self) -> None:
        number = _NUMBERS.get(platform.machine())
        if number is None:
            raise KernelError(f"bpf(2) has no known number on {platform.machine()}")
        self._number = number
        # A call on one entry takes less time than giving up the interpreter and getting it back; a call on many does not.
        self._brief = _syscall(ctypes.PyDLL)
        self._long = _syscall(ctypes.CDLL)
        self._tc: FilterSocket | None = None
        self._tc_lock = threading.Lock()
        _lift_memlock()

    def _bpf(self, command: Command, attr: ctypes.Structure, *, brief: bool = False) -> int:
        """The call's result, or minus the errno."""
        call = self._brief if brief else self._long
        result: int = call(self._number, command, ctypes.byref(attr), ctypes.sizeof(attr))
        return result if result >= 0 else -ctypes.get_errno()

    def _checked(self, command: Command, attr: ctypes.Structure, operation: str) -> int:
        result = self._bpf(command, attr)
        if result < 0:
            raise BpfError(operation, -result)
        return result

    @cached_property
    def possible_cpus(self) -> int:
        return possible_cpus()

    def close(self, fd: int) -> None:
        os.close(fd)

    # Maps.

    def map_create(self, attributes: MapAttributes) -> int:
        attr = uapi.MapCreateAttr(
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

    def _create_described(self, attr: uapi.MapCreateAttr, attributes: MapAttributes) -> int:
        """Creates a map of a kind for which the kernel wants to be told types."""
        described = btf.of_map(attributes.value_size)
        load = uapi.BtfLoadAttr(btf=described, btf_size=len(described))
        attr.btf_fd = self._checked(Command.BTF_LOAD, load, f"describe map {attributes.name}")
        attr.btf_key_type_id, attr.btf_value_type_id = btf.KEY, btf.VALUE
        try:
            return self._checked(Command.MAP_CREATE, attr, f"create map {attributes.name}")
        finally:
            os.close(attr.btf_fd)

    def map_lookup(self, fd: int, key: bytes, value_size: int) -> bytes | None:
        value = ctypes.create_string_buffer(value_size)
        attr = uapi.MapElementAttr(fd, key, ctypes.addressof(value), 0)
        result = self._bpf(Command.MAP_LOOKUP_ELEM, attr, brief=True)
        if result >= 0:
            return value.raw
        if result == -errno.ENOENT:
            return None
        raise BpfError("look up", -result)

    def map_update(self, fd: int, key: bytes, value: bytes, flags: int = 0) -> None:
        attr = uapi.MapElementAttr(fd, key, _address(value), flags)
        result = self._bpf(Command.MAP_UPDATE_ELEM, attr, brief=True)
        if -result in _FULL:
            raise MapFull("update", -result)
        if result < 0:
            raise BpfError("update", -result)

    def map_delete(self, fd: int, key: bytes) -> bool:
        result = self._bpf(Command.MAP_DELETE_ELEM, uapi.MapElementAttr(fd, key, None, 0), brief=True)
        if result < 0 and result != -errno.ENOENT:
            raise BpfError("delete", -result)
        return result >= 0

    def map_next_key(self, fd: int, key: bytes | None, key_size: int) -> bytes | None:
        following = ctypes.create_string_buffer(key_size)
        attr = uapi.MapElementAttr(fd, key, ctypes.addressof(following), 0)
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
        self._checked(Command.MAP_FREEZE, uapi.OneNumberAttr(fd), "freeze map")

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

    def _load(self, attr: uapi.ProgramLoadAttr) -> int:
        for _ in range(5):  # a signal interrupts the verifier
            result = self._bpf(Command.PROG_LOAD, attr)
            if result != -errno.EAGAIN:
                break
        return result

    def _verifier_log(self, attr: uapi.ProgramLoadAttr) -> str:
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
        attr = uapi.TestRunAttr(
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
        return self._checked(Command.ENABLE_STATS, uapi.OneNumberAttr(0), "enable statistics")

    # Links.

    def link_create(
        self, program_fd: int, target: int, attach: AttachType, *, flags: int = 0, order: Order | None = None
    ) -> int:
        attr = uapi.LinkCreateAttr(prog_fd=program_fd, target=target, attach_type=attach, flags=flags)
        if order is not None:
            attr.flags |= _order_flags(order)
            attr.relative = order.link_id
        return self._checked(Command.LINK_CREATE, attr, f"attach to {attach.name}")

    def link_update(self, link_fd: int, program_fd: int) -> None:
        self._checked(
            Command.LINK_UPDATE, uapi.LinkUpdateAttr(link_fd, program_fd), "replace a link's program"
        )

    def link_detach(self, link_fd: int) -> None:
        self._checked(Command.LINK_DETACH, uapi.OneNumberAttr(link_fd), "detach a link")

    def hook_state(self, target: int, attach: AttachType) -> HookState:
        programs, links = (ctypes.c_uint32 * 64)(), (ctypes.c_uint32 * 64)()
        attr = uapi.QueryAttr(target=target, attach_type=attach, count=64)
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
        attr = uapi.ObjectAttr(os.fsencode(path), fd, 0)
        self._checked(Command.OBJ_PIN, attr, f"pin {path}")

    def open_pin(self, path: Path) -> int:
        attr = uapi.ObjectAttr(os.fsencode(path), 0, 0)
        return self._checked(Command.OBJ_GET, attr, f"open {path}")

    def ensure_bpffs(self, folder: Path) -> None:
        ensure_folder(folder)

    def ids(self, kind: ObjectType) -> list[int]:
        found: list[int] = []
        attr = uapi.IdAttr()
        while (result := self._bpf(_NEXT_ID[kind], attr)) >= 0:
            found.append(attr.next_id)
            attr.id = attr.next_id
        if result != -errno.ENOENT:
            raise BpfError(f"list {kind}s", -result)
        return found

    def open_id(self, kind: ObjectType, number: int) -> int | None:
        result = self._bpf(_OPEN_ID[kind], uapi.IdAttr(number))
        if result < 0 and result != -errno.ENOENT:
            raise BpfError(f"open {kind} {number}", -result)
        return result if result >= 0 else None

    def _info(self, fd: int, info: _T) -> _T:
        attr = uapi.InfoAttr(fd, ctypes.sizeof(info), ctypes.addressof(info))
        self._checked(Command.OBJ_GET_INFO_BY_FD, attr, "get information")
        return info

    def map_info(self, fd: int) -> MapInfo:
        info = self._info(fd, uapi.MapInfoStruct())
        return MapInfo(
            id=info.id,
            kind=_known(MapKind, info.type),
            name=info.name.decode(),
            key_size=info.key_size,
            value_size=info.value_size,
            max_entries=info.max_entries,
            flags=info.map_flags,
        )

    def program_info(self, fd: int) -> ProgramInfo:
        maps = (ctypes.c_uint32 * 256)()
        info = uapi.ProgramInfoStruct(nr_map_ids=256, map_ids=ctypes.addressof(maps))
        self._info(fd, info)
        return ProgramInfo(
            id=info.id,
            type=_known(ProgramType, info.type),
            name=info.name.decode(),
            tag=bytes(info.tag).hex(),
            instructions=info.xlated_prog_len // 8,
            verified=info.verified_insns,
            jited_bytes=info.jited_prog_len,
            load_time_ns=info.load_time,
            map_ids=tuple(maps[: info.nr_map_ids]),
            run_count=info.run_cnt,
            run_time_ns=info.run_time_ns,
            recursion_misses=info.recursion_misses,
        )

    def link_info(self, fd: int) -> LinkInfo:
        info = self._info(fd, uapi.LinkInfoStruct())
        of = info.of.cgroup if info.type == LinkType.CGROUP else info.of.target
        attach = AttachType.XDP if info.type == LinkType.XDP else _known(AttachType, of.attach_type)
        return LinkInfo(
            id=info.id,
            type=_known(LinkType, info.type),
            program_id=info.prog_id,
            target=of.cgroup_id if info.type == LinkType.CGROUP else of.target,
            attach=attach,
        )


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


def _syscall(loader: type[ctypes.CDLL]) -> Any:
    function = loader(None, use_errno=True).syscall
    function.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint]
    function.restype = ctypes.c_long
    return function


def _lift_memlock() -> None:
    """Before 5.11 maps and programs count as locked memory; elsewhere this changes nothing."""
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    for limit in ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), (hard, hard)):
        try:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, limit)
        except (ValueError, OSError):
            continue
        return


def _address(data: bytes) -> ctypes.c_void_p:
    """Where the bytes are; the object made from it keeps them alive."""
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p)


def _batch(fd: int, keys: Buffer, values: Buffer | None = None) -> uapi.MapBatchAttr:
    return uapi.MapBatchAttr(
        keys=keys.ctypes.data,
        values=None if values is None else values.ctypes.data,
        count=len(keys),
        map_fd=fd,
    )


def _load_attr(attributes: ProgramAttributes) -> uapi.ProgramLoadAttr:
    return uapi.ProgramLoadAttr(
        prog_type=attributes.type,
        insn_cnt=len(attributes.instructions) // 8,
        insns=attributes.instructions,
        license=attributes.license.encode(),
        prog_name=attributes.name.encode()[: uapi.OBJ_NAME_LEN - 1],
        expected_attach_type=attributes.expected_attach or 0,
    )


def _order_flags(order: Order) -> int:
    """`BEFORE` with nothing to refer to means before all, `AFTER` after all."""
    flags = AttachFlag.BEFORE if order.place in (Place.FIRST, Place.BEFORE) else AttachFlag.AFTER
    return flags | AttachFlag.ID | AttachFlag.LINK if order.link_id else flags


def _known(kind: type[Any], number: int) -> Any:
    """The member with that number, or the bare number when a newer kernel has something that is unknown here."""
    try:
        return kind(number)
    except ValueError:
        return number
