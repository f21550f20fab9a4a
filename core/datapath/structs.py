"""What bpf(2) takes and fills: the members of `union bpf_attr` and the `bpf_…_info` structs of `linux/bpf.h`.

As `uapi`, they are ABI: the kernel only appends, and takes a shorter or longer struct than its own.
"""

from __future__ import annotations

import ctypes

from axoneme.core.datapath.uapi import OBJ_NAME_LEN

_u8, _u32, _i32, _u64 = ctypes.c_uint8, ctypes.c_uint32, ctypes.c_int32, ctypes.c_uint64
_pointer = ctypes.c_void_p


class MapCreateAttr(ctypes.Structure):
    _fields_ = [
        ("map_type", _u32),
        ("key_size", _u32),
        ("value_size", _u32),
        ("max_entries", _u32),
        ("map_flags", _u32),
        ("inner_map_fd", _u32),
        ("numa_node", _u32),
        ("map_name", ctypes.c_char * OBJ_NAME_LEN),
        ("map_ifindex", _u32),
        ("btf_fd", _u32),
        ("btf_key_type_id", _u32),
        ("btf_value_type_id", _u32),
        ("btf_vmlinux_value_type_id", _u32),
        ("map_extra", _u64),
    ]


class BtfLoadAttr(ctypes.Structure):
    _fields_ = [
        ("btf", ctypes.c_char_p),
        ("btf_log_buf", _pointer),
        ("btf_size", _u32),
        ("btf_log_size", _u32),
        ("btf_log_level", _u32),
    ]


class MapElementAttr(ctypes.Structure):
    _fields_ = [("map_fd", _u32), ("key", ctypes.c_char_p), ("value", _pointer), ("flags", _u64)]


class MapElementAtAttr(ctypes.Structure):
    """The same with addresses as numbers, for who goes through many."""

    _fields_ = [("map_fd", _u32), ("key", _u64), ("value", _u64), ("flags", _u64)]


class MapBatchAttr(ctypes.Structure):
    _fields_ = [
        ("in_batch", _pointer),
        ("out_batch", _pointer),
        ("keys", _pointer),
        ("values", _pointer),
        ("count", _u32),
        ("map_fd", _u32),
        ("elem_flags", _u64),
        ("flags", _u64),
    ]


class ProgramLoadAttr(ctypes.Structure):
    _fields_ = [
        ("prog_type", _u32),
        ("insn_cnt", _u32),
        ("insns", ctypes.c_char_p),
        ("license", ctypes.c_char_p),
        ("log_level", _u32),
        ("log_size", _u32),
        ("log_buf", _pointer),
        ("kern_version", _u32),
        ("prog_flags", _u32),
        ("prog_name", ctypes.c_char * OBJ_NAME_LEN),
        ("prog_ifindex", _u32),
        ("expected_attach_type", _u32),
    ]


class ObjectAttr(ctypes.Structure):
    _fields_ = [("pathname", ctypes.c_char_p), ("bpf_fd", _u32), ("file_flags", _u32)]


class TestRunAttr(ctypes.Structure):
    _fields_ = [
        ("prog_fd", _u32),
        ("retval", _u32),
        ("data_size_in", _u32),
        ("data_size_out", _u32),
        ("data_in", ctypes.c_char_p),
        ("data_out", _pointer),
        ("repeat", _u32),
        ("duration", _u32),
        ("ctx_size_in", _u32),
        ("ctx_size_out", _u32),
        ("ctx_in", ctypes.c_char_p),
        ("ctx_out", _pointer),
        ("flags", _u32),
        ("cpu", _u32),
        ("batch_size", _u32),
    ]


class IdAttr(ctypes.Structure):
    _fields_ = [("id", _u32), ("next_id", _u32), ("open_flags", _u32)]


class InfoAttr(ctypes.Structure):
    _fields_ = [("bpf_fd", _u32), ("info_len", _u32), ("info", _pointer)]


class QueryAttr(ctypes.Structure):
    _fields_ = [
        ("target", _u32),
        ("attach_type", _u32),
        ("query_flags", _u32),
        ("attach_flags", _u32),
        ("prog_ids", _pointer),
        ("count", _u32),
        ("padding", _u32),
        ("prog_attach_flags", _pointer),
        ("link_ids", _pointer),
        ("link_attach_flags", _pointer),
        ("revision", _u64),
    ]


class LinkCreateAttr(ctypes.Structure):
    """With the member of the union that TCX (6.6) and cgroups (6.17) use; all others leave it zero."""

    _fields_ = [
        ("prog_fd", _u32),
        ("target", _u32),
        ("attach_type", _u32),
        ("flags", _u32),
        ("relative", _u32),
        ("expected_revision", _u64),
    ]


class LinkUpdateAttr(ctypes.Structure):
    _fields_ = [("link_fd", _u32), ("new_prog_fd", _u32), ("flags", _u32), ("old_prog_fd", _u32)]


class OneNumberAttr(ctypes.Structure):
    """`link_detach`, `enable_stats` and `MAP_FREEZE`: one number."""

    _fields_ = [("number", _u32)]


class MapInfoStruct(ctypes.Structure):
    """`struct bpf_map_info`, up to the name."""

    _fields_ = [
        ("type", _u32),
        ("id", _u32),
        ("key_size", _u32),
        ("value_size", _u32),
        ("max_entries", _u32),
        ("map_flags", _u32),
        ("name", ctypes.c_char * OBJ_NAME_LEN),
    ]


class ProgramInfoStruct(ctypes.Structure):
    """`struct bpf_prog_info`."""

    _fields_ = [
        ("type", _u32),
        ("id", _u32),
        ("tag", _u8 * 8),
        ("jited_prog_len", _u32),
        ("xlated_prog_len", _u32),
        ("jited_prog_insns", _u64),
        ("xlated_prog_insns", _u64),
        ("load_time", _u64),
        ("created_by_uid", _u32),
        ("nr_map_ids", _u32),
        ("map_ids", _pointer),
        ("name", ctypes.c_char * OBJ_NAME_LEN),
        ("ifindex", _u32),
        ("gpl_compatible", _u32),
        ("netns_dev", _u64),
        ("netns_ino", _u64),
        ("nr_jited_ksyms", _u32),
        ("nr_jited_func_lens", _u32),
        ("jited_ksyms", _u64),
        ("jited_func_lens", _u64),
        ("btf_id", _u32),
        ("func_info_rec_size", _u32),
        ("func_info", _u64),
        ("nr_func_info", _u32),
        ("nr_line_info", _u32),
        ("line_info", _u64),
        ("jited_line_info", _u64),
        ("nr_jited_line_info", _u32),
        ("line_info_rec_size", _u32),
        ("jited_line_info_rec_size", _u32),
        ("nr_prog_tags", _u32),
        ("prog_tags", _u64),
        ("run_time_ns", _u64),
        ("run_cnt", _u64),
        ("recursion_misses", _u64),
        ("verified_insns", _u32),
        ("attach_btf_obj_id", _u32),
        ("attach_btf_id", _u32),
    ]


class _LinkCgroup(ctypes.Structure):
    _fields_ = [("cgroup_id", _u64), ("attach_type", _u32)]


class _LinkTarget(ctypes.Structure):
    """`netns` (inode, attach type), `tcx` (ifindex, attach type) and `xdp` (ifindex) share this shape."""

    _fields_ = [("target", _u32), ("attach_type", _u32)]


class _LinkUnion(ctypes.Union):
    # The kernel's union is larger; a longer buffer is fine, it fills what it knows.
    _fields_ = [("cgroup", _LinkCgroup), ("target", _LinkTarget), ("room", _u64 * 6)]


class LinkInfoStruct(ctypes.Structure):
    """`struct bpf_link_info`."""

    _fields_ = [("type", _u32), ("id", _u32), ("prog_id", _u32), ("of", _LinkUnion)]
