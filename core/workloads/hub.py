"""The hub: the one device to which the host routes the addresses of all its workloads.

What the host itself, or the world through the host's stack, sends to a workload leaves through it, and there the program
`to_workload` decides about it and hands it to the workload's own interface. So that program is attached once and not to
every interface: an attachment waits for all CPUs to pass a quiescent state, which takes longer than all else that a new
workload needs. Without a program the hub leads nowhere: what nobody decided about is not delivered.

It is one half of a veth pair that nobody listens at the other end of, does no address resolution, and carries the node's
own address in each pool, which what the host sends to workloads has as its source.
"""

from __future__ import annotations

from ipaddress import ip_network

from attrs import frozen

from axoneme.core.net.model import Address, Fact, InterfaceAddress
from axoneme.core.workloads.wiring import alias_prefix, mac_address
from axoneme.core.workloads.wishes import WorkloadOptions


@frozen(kw_only=True)
class Hub:
    """What the hub of one agent is like.

    :param name: of the half that routes point to; `peer` is the other one.
    :param alias: the mark by which it is known as ours.
    """

    name: str
    peer: str
    alias: str
    mac: str
    peer_mac: str
    addresses: tuple[Address, ...]
    mtu: int

    def facts(self, ifindex: int) -> tuple[Fact, ...]:
        """What it has to carry."""
        return tuple(InterfaceAddress(ifindex, address, address.max_prefixlen) for address in self.addresses)

    def sysctls(self) -> dict[str, int]:
        """Sysctls of both halves, before they go up. See `Wiring.outside_sysctls` for the reverse path filter.

        What the host sends to a workload may be turned round here, to a proxy: hence `accept_local`.
        """
        four = f"net/ipv4/conf/{self.name}"
        wanted = {f"{four}/rp_filter": 0, f"{four}/forwarding": 1, f"{four}/send_redirects": 0}
        wanted[f"{four}/accept_local"] = 1
        if any(address.version == 6 for address in self.addresses):
            six = f"net/ipv6/conf/{self.name}"
            wanted |= {f"{six}/{key}": 0 for key in ("disable_ipv6", "accept_dad", "accept_ra")}
            wanted |= {f"{six}/forwarding": 1, f"{six}/addr_gen_mode": 1}
            wanted[f"net/ipv6/conf/{self.peer}/disable_ipv6"] = 1
        return wanted


def hub_of(options: WorkloadOptions, mtu: int) -> Hub:
    """The hub that these options ask for. The pools keep their second address for it."""
    pools = [ip_network(pool) for pool in (options.ipv4, options.ipv6) if pool is not None]
    return Hub(
        name=f"{options.link_prefix}hub",
        peer=f"{options.link_prefix}end",
        alias=f"{alias_prefix(options.agent)}hub",
        mac=mac_address(options.agent, 0, "hub"),
        peer_mac=mac_address(options.agent, 0, "end"),
        addresses=tuple(pool[1] for pool in pools),
        mtu=mtu,
    )
