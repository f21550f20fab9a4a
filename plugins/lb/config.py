"""The section `lb` of the configuration."""

from __future__ import annotations

import enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING

from attrs import frozen

from axoneme.core.structure import setting
from axoneme.plugins.lb.maps import Algorithm, Sizes, TableSize

if TYPE_CHECKING:
    from axoneme.plugins.lb.resolve import Defaults


class AlgorithmName(enum.StrEnum):
    RANDOM = "random"
    ROUND_ROBIN = "round-robin"
    MAGLEV = "maglev"
    LEAST_CONNECTIONS = "least-connections"


class Forwarding(enum.StrEnum):
    SNAT = "snat"
    DSR = "dsr"


@frozen(kw_only=True)
class LbConfig:
    algorithm: AlgorithmName = setting(
        AlgorithmName.RANDOM, help="how services choose, unless they say it themselves"
    )
    maglev_size: TableSize = setting(
        16_381,
        help="slots of a service that hashes consistently, at least 100 per backend: 251, 509, 1021, 2039, 4093, 8191, "
        "16381, 32749, 65521 or 131071; below 16381 a backend that comes or goes moves up to 4 % of the others' flows, not 1 %",
    )
    forwarding: Forwarding = setting(
        Forwarding.SNAT, help="how traffic from outside reaches backends of other nodes"
    )
    zone: str = setting("", help="the zone of this node, for topology hints")
    node_port_addresses: tuple[IPv4Network | IPv6Network, ...] = setting(
        (), help="prefixes: which addresses of this node have node ports; empty: all"
    )
    load_balancer_classes: tuple[str, ...] = setting(
        ("", "io.cilium/l2-announcer", "io.cilium/bgp-control-plane"),
        help="the values of loadBalancerClass to which pools give addresses",
    )
    close_sockets: bool = setting(
        True, help="close TCP connections of local sockets to backends that are gone"
    )
    services: int = setting(65_536, help="room for service addresses, per family", minimum=1024)
    slots: int = setting(
        4_194_304, help="room for what algorithms choose from, of all services", minimum=1024
    )
    backends: int = setting(131_072, help="room for backends", minimum=1024)
    sockets: int = setting(
        65_536,
        help="how many translations at sockets are remembered, per family: of more, the latest",
        minimum=1024,
    )
    affinity: int = setting(65_536, help="room for clients that keep their backend", minimum=1024)
    sources: int = setting(65_536, help="room for source ranges, per family", minimum=1024)

    loopback_ipv4: IPv4Address = setting(
        IPv4Address("169.254.42.1"), help="whom a workload sees that reaches itself through a service"
    )
    loopback_ipv6: IPv6Address = setting(IPv6Address("fd00:169:254:42::1"), help="the same for IPv6")
    at_sockets: bool = setting(True, help="translate at sockets; false: at packets alone")
    socket_events: int = setting(
        64,
        help="of so many translations at sockets one is told of, a power of two; 0: none",
        minimum=0,
        maximum=1 << 16,
    )
    hash_seed: int = setting(
        0x7A6F6E65, help="of Maglev's choice; the same on all nodes", minimum=0, maximum=0xFFFFFFFF
    )
    masquerade: bool = setting(
        True, help="workloads reach the world under the address of the device by which they leave"
    )
    xdp: bool = setting(
        True, help="serve the outside before the network stack, at the node's devices (datapath.devices)"
    )
    native: tuple[IPv4Network | IPv6Network, ...] = setting(
        (), help="prefixes that workloads reach under their own addresses, besides the node's own pools"
    )

    @property
    def sizes(self) -> Sizes:
        return Sizes(
            services=self.services,
            slots=self.slots,
            backends=self.backends,
            sockets=self.sockets,
            affinity=self.affinity,
            sources=self.sources,
        )

    def defaults(self, node: str) -> Defaults:
        from axoneme.plugins.lb.resolve import Defaults

        algorithm = Algorithm[self.algorithm.name]
        return Defaults(algorithm, self.maglev_size, self.forwarding is Forwarding.DSR, self.zone, node)
