"""Runs programs on made packets, without any interface: `BPF_PROG_TEST_RUN`."""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import frozen

from axoneme.core.datapath.kernel import Program
from axoneme.core.datapath.layout import Struct, array, be32, u8, u32, u64

#: `struct __sk_buff` of `linux/bpf.h`. A test-run takes mark, priority, ingress_ifindex, ifindex, cb, tstamp, gso_segs,
#: gso_size, wire_len and hwtstamp; the rest must be zero.
SK_BUFF = Struct(
    "__sk_buff",
    {
        "len": u32,
        "pkt_type": u32,
        "mark": u32,
        "queue_mapping": u32,
        "protocol": u32,
        "vlan_present": u32,
        "vlan_tci": u32,
        "vlan_proto": u32,
        "priority": u32,
        "ingress_ifindex": u32,
        "ifindex": u32,
        "tc_index": u32,
        "cb": array(u32, 5),
        "hash": u32,
        "tc_classid": u32,
        "data": u32,
        "data_end": u32,
        "napi_id": u32,
        "family": u32,
        "remote_ip4": be32,
        "local_ip4": be32,
        "remote_ip6": array(be32, 4),
        "local_ip6": array(be32, 4),
        "remote_port": u32,
        "local_port": u32,
        "data_meta": u32,
        "flow_keys": u64,
        "tstamp": u64,
        "wire_len": u32,
        "gso_segs": u32,
        "sk": u64,
        "gso_size": u32,
        "tstamp_type": u8,
        "pad": array(u8, 3),
        "hwtstamp": u64,
    },
)

#: `struct xdp_md` of `linux/bpf.h`.
XDP_MD = Struct(
    "xdp_md",
    {
        "data": u32,
        "data_end": u32,
        "data_meta": u32,
        "ingress_ifindex": u32,
        "rx_queue_index": u32,
        "egress_ifindex": u32,
    },
)


@frozen(kw_only=True, eq=False)
class Outcome:
    """What a program did.

    :ivar verdict: what it returned: `TC_ACT_*`, `XDP_*`, signed as these are.
    :ivar packet: the bytes after it.
    :ivar context: `struct __sk_buff` or `struct xdp_md` after it.
    :ivar duration: mean of all repeats, in ns, the kernel's own loop included (some 10 to 30 ns).
    """

    verdict: int
    packet: bytes
    context: np.void
    duration: int


def run_skb(program: Program, packet: bytes, *, repeat: int = 1, **context: Any) -> Outcome:
    """Runs a classifier or cgroup program on an Ethernet frame.

    Repeats run on the same packet: what one run changes, the next one sees.

    :param packet: at least the 14 bytes of an Ethernet header.
    :param context: fields of `struct __sk_buff`; an `ifindex` must exist.
    :raises BpfError: EINVAL for a packet or context that the kernel does not take.
    """
    return _run(program, packet, repeat, SK_BUFF, SK_BUFF.pack(**context))


def run_xdp(program: Program, packet: bytes, *, repeat: int = 1, **context: Any) -> Outcome:
    """Runs an XDP program on an Ethernet frame. `context` as `ingress_ifindex` and `rx_queue_index` of `struct xdp_md`."""
    return _run(program, packet, repeat, XDP_MD, XDP_MD.pack(data_end=len(packet), **context))


def _run(program: Program, packet: bytes, repeat: int, layout: Struct, context: bytes) -> Outcome:
    done = program.kernel.program_test_run(program.fd, packet, context=context, repeat=repeat)
    return Outcome(
        verdict=done.retval - (1 << 32) if done.retval >> 31 else done.retval,
        packet=done.data,
        context=layout.unpack(done.context),
        duration=done.duration,
    )
