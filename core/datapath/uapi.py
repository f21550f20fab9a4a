"""Numbers of the kernel's `linux/bpf.h`, as far as they are used here; its structs are in `structs`.

They are ABI: the kernel never changes them, it only appends. Written out rather than read from a header, because an
agent's machine need not have headers, and because distributions' headers are older than the kernels they run on.
"""

from __future__ import annotations

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
