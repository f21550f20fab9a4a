"""The attach points: where programs run, of what type they are, and what decides when no stage does.

The packet ones:

    from_workload   ingress of the host side of each workload's interface: all that workloads send
    to_workload     egress of the one device to which the host routes its workloads' addresses: what the host itself, or
                    the world through the host's stack, sends to any of them. One attachment for all workloads
    from_network    ingress of the node's own devices (`axoneme.core.net.devices`): past the stack, straight to the workload
    to_network      egress of the node's own devices, when a stage wants it
"""

from __future__ import annotations

from attrs import frozen

from axoneme.core.datapath.abi import AttachPoint as Number
from axoneme.core.datapath.uapi import AttachType, ProgramType
from axoneme.core.records import Phase

#: What a TCX program returns to leave the verdict to the next one at the hook (`TCX_NEXT`, `TC_ACT_UNSPEC`).
_TC_NEXT = -1
_XDP_PASS = 2


@frozen(kw_only=True)
class AttachPoint:
    """One place where programs run.

    :param context: the C type that the program gets.
    :param default: what the program returns when no stage had an opinion.
    :param packets: it handles parsed packets: the whole phase order, instantiated per family. The others are a plain
        chain of stages over their context.
    :param frames: a chain whose context is an Ethernet frame: instantiated per family, entered by the frame's type.
    :param families: address families that the program sees.
    """

    name: str
    program: ProgramType
    attach: AttachType
    context: str
    default: int
    packets: bool = False
    frames: bool = False
    families: tuple[int, ...] = (4, 6)
    phases: tuple[Phase, ...] = tuple(Phase)

    @property
    def defines(self) -> dict[str, int]:
        """The constants by which the shared C knows where it runs."""
        if self.frames:
            return {"ATTACH_POINT": int(Number[self.name])}
        if not self.packets:
            return {}
        return {
            "ATTACH_POINT": int(Number[self.name]),
            "FROM_WORKLOAD": int(self.name == "from_workload"),
            "FROM_NETWORK": int(self.name == "from_network"),
            "TO_WORKLOAD": int(self.name == "to_workload"),
            # As Cilium counts: 1 is into a workload, 2 is out of one.
            "DIRECTION": int(self.name in ("from_workload", "to_network")),
        }


def _packets(name: str, attach: AttachType) -> AttachPoint:
    return AttachPoint(
        name=name,
        program=ProgramType.SCHED_CLS,
        attach=attach,
        context="__sk_buff",
        default=_TC_NEXT,
        packets=True,
    )


def _sock(name: str, attach: AttachType, family: int) -> AttachPoint:
    return AttachPoint(
        name=name, program=ProgramType.CGROUP_SOCK_ADDR, attach=attach, context="bpf_sock_addr", default=1,
        families=(family,),
    )  # fmt: skip


ATTACH_POINTS: dict[str, AttachPoint] = {
    point.name: point
    for point in (
        _packets("from_workload", AttachType.TCX_INGRESS),
        _packets("to_workload", AttachType.TCX_EGRESS),
        _packets("from_network", AttachType.TCX_INGRESS),
        _packets("to_network", AttachType.TCX_EGRESS),
        AttachPoint(
            name="xdp_network", program=ProgramType.XDP, attach=AttachType.XDP, context="xdp_md", default=_XDP_PASS,
            frames=True,
        ),
        _sock("sock_connect4", AttachType.CGROUP_INET4_CONNECT, 4),
        _sock("sock_connect6", AttachType.CGROUP_INET6_CONNECT, 6),
        _sock("sock_sendmsg4", AttachType.CGROUP_UDP4_SENDMSG, 4),
        _sock("sock_sendmsg6", AttachType.CGROUP_UDP6_SENDMSG, 6),
        _sock("sock_recvmsg4", AttachType.CGROUP_UDP4_RECVMSG, 4),
        _sock("sock_recvmsg6", AttachType.CGROUP_UDP6_RECVMSG, 6),
        _sock("sock_getpeername4", AttachType.CGROUP_INET4_GETPEERNAME, 4),
        _sock("sock_getpeername6", AttachType.CGROUP_INET6_GETPEERNAME, 6),
        AttachPoint(
            name="sk_lookup", program=ProgramType.SK_LOOKUP, attach=AttachType.SK_LOOKUP, context="bpf_sk_lookup",
            default=1,
        ),
        AttachPoint(
            name="cgroup_ingress", program=ProgramType.CGROUP_SKB, attach=AttachType.CGROUP_INET_INGRESS,
            context="__sk_buff", default=1,
        ),
        AttachPoint(
            name="cgroup_egress", program=ProgramType.CGROUP_SKB, attach=AttachType.CGROUP_INET_EGRESS,
            context="__sk_buff", default=1,
        ),
    )
}  # fmt: skip
