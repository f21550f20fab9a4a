"""A workload's network, as what has to be there: computed, compared, then made.

The workload sees one interface, `eth0`, with its addresses as single ones (/32, /128), and sends everything to the host
by way of two link-local gateways whose MAC it is told: it never asks anybody. The host has, for each workload, an
interface `axo<id>`, on which it only receives, and a route to each address through the hub (`axoneme.core.workloads.hub`).
There is no bridge and no broadcast, so nobody can answer for somebody else.
"""

from __future__ import annotations

import hashlib
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from attrs import frozen

from axoneme.core.net.model import Address, Fact, InterfaceAddress, Neighbour, Route
from axoneme.core.workloads.ipcache import host_prefix
from axoneme.core.workloads.records import Record

#: The workload's interface, in its namespace.
INSIDE = "eth0"

GATEWAYS: dict[int, Address] = {4: IPv4Address("169.254.1.1"), 6: IPv6Address("fe80::1")}
_DEFAULTS: dict[int, IPv4Network | IPv6Network] = {4: IPv4Network("0.0.0.0/0"), 6: IPv6Network("::/0")}


@frozen(kw_only=True)
class Wiring:
    """The network of one endpoint.

    :param alias: the mark by which its host-side interface is known as ours.
    """

    ifname: str
    alias: str
    mac: str
    node_mac: str
    addresses: tuple[Address, ...]
    mtu: int

    @property
    def ipv6(self) -> bool:
        return any(address.version == 6 for address in self.addresses)

    def inside(self, ifindex: int) -> tuple[Fact, ...]:
        """What has to be in the workload's namespace, in the order in which it is made."""
        facts: list[Fact] = [InterfaceAddress(ifindex, a, a.max_prefixlen) for a in self.addresses]
        gateways = [GATEWAYS[a.version] for a in self.addresses]
        facts += [Neighbour(ifindex, gateway, self.node_mac) for gateway in gateways]
        facts += [Route(ifindex, _DEFAULTS[gateway.version], gateway) for gateway in gateways]
        return tuple(facts)

    def outside(self, hub: int) -> tuple[Fact, ...]:
        """What has to be on the host, in the order in which it is made.

        :param hub: the index of the hub.
        """
        return tuple(Route(hub, host_prefix(address)) for address in self.addresses)

    def inside_sysctls(self) -> dict[str, int]:
        """Sysctls of the workload's interface, before it goes up."""
        return self._ipv6_sysctls(INSIDE)

    def outside_sysctls(self) -> dict[str, int]:
        """Sysctls of the host's side, before it goes up.

        Reverse path filtering would drop what a proxy sends with a workload's address. The effective value is the
        larger one of this and of `all`, so that 1 in `all` still filters.
        """
        four = f"net/ipv4/conf/{self.ifname}"
        wanted = {f"{four}/rp_filter": 0, f"{four}/forwarding": 1, f"{four}/send_redirects": 0}
        wanted |= self._ipv6_sysctls(self.ifname)
        if self.ipv6:
            six = f"net/ipv6/conf/{self.ifname}"
            wanted |= {f"{six}/forwarding": 1, f"{six}/addr_gen_mode": 1}  # 1: no other link-local address
        return wanted

    def _ipv6_sysctls(self, interface: str) -> dict[str, int]:
        """Nobody else is on the link: no duplicates to detect, no routers to hear."""
        if not self.ipv6:
            return {}
        six = f"net/ipv6/conf/{interface}"
        return {f"{six}/disable_ipv6": 0, f"{six}/accept_dad": 0, f"{six}/accept_ra": 0}


def alias_prefix(agent: str) -> str:
    """How the alias of every interface of an agent begins."""
    return f"axoneme:{agent}:"


def wiring_of(record: Record, agent: str, mtu: int) -> Wiring:
    return Wiring(
        ifname=record.ifname,
        alias=f"{alias_prefix(agent)}{record.id}",
        mac=record.mac,
        node_mac=record.node_mac,
        addresses=record.addresses,
        mtu=mtu,
    )


def mac_address(agent: str, number: int, side: str) -> str:
    """A MAC address of our own making: unicast, locally administered, the same one each time, another for each side."""
    digest = bytearray(hashlib.blake2b(f"{agent}|{number}|{side}".encode(), digest_size=6).digest())
    digest[0] = digest[0] & 0xFC | 0x02
    return digest.hex(":")
