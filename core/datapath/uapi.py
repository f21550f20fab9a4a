"""Numbers and structs of the kernel's `linux/bpf.h`, as far as they are used here.

They are ABI: the kernel never changes them, it only appends. Written out rather than read from a header, because an
agent's machine need not have headers, and because distributions' headers are older than the kernels they run on.
"""

from __future__ import annotations

import ctypes
import enum

OBJ_NAME_LEN = 16
"""Names of maps and programs in the kernel, the closing zero included (`BPF_OBJ_NAME_LEN`)."""

ENOTSUPP = 524
"""The kernel's own "not supported", which leaks to user space and has no name in `errno`."""

BPF_FS_MAGIC = 0xCAFE4A11


class Command(enum.IntEnum):
    """`enum bpf_cmd`."""

    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    MAP_GET_NEXT_KEY = 4
    PROG_LOAD = 5
    OBJ_PIN = 6
    OBJ_GET = 7
    PROG_TEST_RUN = 10
    PROG_GET_NEXT_ID = 11
    MAP_GET_NEXT_ID = 12
    PROG_GET_FD_BY_ID = 13
    MAP_GET_FD_BY_ID = 14
    OBJ_GET_INFO_BY_FD = 15
    PROG_QUERY = 16
    BTF_LOAD = 18
    MAP_FREEZE = 22
    MAP_LOOKUP_BATCH = 24
    MAP_UPDATE_BATCH = 26
    MAP_DELETE_BATCH = 27
    LINK_CREATE = 28
    LINK_UPDATE = 29
    LINK_GET_FD_BY_ID = 30
    LINK_GET_NEXT_ID = 31
    ENABLE_STATS = 32
    LINK_DETACH = 34


class MapKind(enum.IntEnum):
    """`enum bpf_map_type`."""

    HASH = 1
    ARRAY = 2
    PROG_ARRAY = 3
    PERF_EVENT_ARRAY = 4
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LRU_PERCPU_HASH = 10
    LPM_TRIE = 11
    ARRAY_OF_MAPS = 12
    HASH_OF_MAPS = 13
    DEVMAP = 14
    SOCKMAP = 15
    CPUMAP = 16
    XSKMAP = 17
    SOCKHASH = 18
    REUSEPORT_SOCKARRAY = 20
    QUEUE = 22
    STACK = 23
    SK_STORAGE = 24
    DEVMAP_HASH = 25
    RINGBUF = 27
    BLOOM_FILTER = 30

    @property
    def per_cpu(self) -> bool:
        return self in _PER_CPU

    @property
    def indexed(self) -> bool:
        """The key is an index from 0 to max_entries - 1, and every entry always exists."""
        return self in _INDEXED

    @property
    def listable(self) -> bool:
        """Its entries can be read one after the other. Storage of sockets is with the sockets."""
        return self is not MapKind.SK_STORAGE


_PER_CPU = frozenset({MapKind.PERCPU_HASH, MapKind.PERCPU_ARRAY, MapKind.LRU_PERCPU_HASH})
_INDEXED = frozenset({MapKind.ARRAY, MapKind.PERCPU_ARRAY})


class ProgramType(enum.IntEnum):
    """`enum bpf_prog_type`."""

    SOCKET_FILTER = 1
    SCHED_CLS = 3
    SCHED_ACT = 4
    XDP = 6
    CGROUP_SKB = 8
    CGROUP_SOCK = 9
    SOCK_OPS = 13
    SK_SKB = 14
    SK_MSG = 16
    CGROUP_SOCK_ADDR = 18
    SK_REUSEPORT = 21
    CGROUP_SYSCTL = 23
    CGROUP_SOCKOPT = 25
    SK_LOOKUP = 30


class AttachType(enum.IntEnum):
    """`enum bpf_attach_type`."""

    CGROUP_INET_INGRESS = 0
    CGROUP_INET_EGRESS = 1
    CGROUP_INET_SOCK_CREATE = 2
    CGROUP_SOCK_OPS = 3
    CGROUP_INET4_BIND = 8
    CGROUP_INET6_BIND = 9
    CGROUP_INET4_CONNECT = 10
    CGROUP_INET6_CONNECT = 11
    CGROUP_INET4_POST_BIND = 12
    CGROUP_INET6_POST_BIND = 13
    CGROUP_UDP4_SENDMSG = 14
    CGROUP_UDP6_SENDMSG = 15
    CGROUP_UDP4_RECVMSG = 19
    CGROUP_UDP6_RECVMSG = 20
    CGROUP_INET4_GETPEERNAME = 29
    CGROUP_INET6_GETPEERNAME = 30
    CGROUP_INET4_GETSOCKNAME = 31
    CGROUP_INET6_GETSOCKNAME = 32
    CGROUP_INET_SOCK_RELEASE = 34
    SK_LOOKUP = 36
    XDP = 37
    TCX_INGRESS = 46
    TCX_EGRESS = 47


class LinkType(enum.IntEnum):
    """`enum bpf_link_type`."""

    CGROUP = 3
    NETNS = 5
    XDP = 6
    TCX = 11


class MapFlag(enum.IntFlag):
    """Flags of `BPF_MAP_CREATE`."""

    NO_PREALLOC = 1 << 0
    NO_COMMON_LRU = 1 << 1
    RDONLY_PROG = 1 << 7
    WRONLY_PROG = 1 << 8
    MMAPABLE = 1 << 10


class UpdateFlag(enum.IntEnum):
    """Flags of `BPF_MAP_UPDATE_ELEM`."""

    ANY = 0
    NOEXIST = 1
    EXIST = 2


class AttachFlag(enum.IntFlag):
    """Flags of `BPF_LINK_CREATE` and `BPF_LINK_UPDATE`."""

    REPLACE = 1 << 2
    BEFORE = 1 << 3
    AFTER = 1 << 4
    ID = 1 << 5
    LINK = 1 << 13


class XdpFlag(enum.IntFlag):
    """`XDP_FLAGS_*` of `linux/if_link.h`, taken by `BPF_LINK_CREATE` for XDP."""

    SKB_MODE = 1 << 1
    DRV_MODE = 1 << 2


class Helper(enum.IntEnum):
    """Helper functions (`enum bpf_func_id`) that a feature probe asks for."""

    MAP_LOOKUP_ELEM = 1
    SK_ASSIGN = 124
    SKC_LOOKUP_TCP = 99
    KTIME_GET_BOOT_NS = 125
    RINGBUF_RESERVE = 131
    REDIRECT_NEIGH = 152
    REDIRECT_PEER = 155
    KTIME_GET_COARSE_NS = 160
    LOOP = 181


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
