"""What the kernel says of its objects: maps, programs and links."""

from __future__ import annotations

import ctypes
from typing import Any, TypeVar

from axoneme.core.datapath import structs
from axoneme.core.datapath.bpf_call import BpfCall
from axoneme.core.datapath.kernel import LinkInfo, MapInfo, ProgramInfo
from axoneme.core.datapath.uapi import AttachType, Command, LinkType, MapKind, ProgramType

_T = TypeVar("_T", bound=ctypes.Structure)


def _info(call: BpfCall, fd: int, info: _T) -> _T:
    attr = structs.InfoAttr(fd, ctypes.sizeof(info), ctypes.addressof(info))
    call.checked(Command.OBJ_GET_INFO_BY_FD, attr, "get information")
    return info


def of_map(call: BpfCall, fd: int) -> MapInfo:
    info = _info(call, fd, structs.MapInfoStruct())
    return MapInfo(
        id=info.id,
        kind=_known(MapKind, info.type),
        name=info.name.decode(),
        key_size=info.key_size,
        value_size=info.value_size,
        max_entries=info.max_entries,
        flags=info.map_flags,
    )


def of_program(call: BpfCall, fd: int) -> ProgramInfo:
    maps = (ctypes.c_uint32 * 256)()
    info = structs.ProgramInfoStruct(nr_map_ids=256, map_ids=ctypes.addressof(maps))
    _info(call, fd, info)
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


def of_link(call: BpfCall, fd: int) -> LinkInfo:
    info = _info(call, fd, structs.LinkInfoStruct())
    of = info.of.cgroup if info.type == LinkType.CGROUP else info.of.target
    attach = AttachType.XDP if info.type == LinkType.XDP else _known(AttachType, of.attach_type)
    return LinkInfo(
        id=info.id,
        type=_known(LinkType, info.type),
        program_id=info.prog_id,
        target=of.cgroup_id if info.type == LinkType.CGROUP else of.target,
        attach=attach,
    )


def _known(kind: type[Any], number: int) -> Any:
    """The member with that number, or the bare number when a newer kernel has something that is unknown here."""
    try:
        return kind(number)
    except ValueError:
        return number
