"""What there is in a network namespace, as values: they are compared, printed, and turned into requests.

An interface is named by its index, which is what the kernel does too; indexes belong to one namespace.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from attrs import frozen

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: Reach of an address (`ip address … scope`), from rtnetlink(7).
SCOPE_GLOBAL, SCOPE_LINK, SCOPE_HOST = 0, 253, 254


@frozen(kw_only=True)
class Link:
    """An interface.

    :param running: it can send: it is up, the other side too, and the kernel has acted on that.
    :param peer: for a veth, the index of its other half, in that one's namespace; 0 when there is none.
    :param elsewhere: the other half is in another namespace.
    :param alias: the free text that `ip link` shows; it is how an owner marks its interfaces.
    :param master: the index of the bridge, bond or routing domain (VRF) that it belongs to, 0 for none.
    :param loopback: it leads back to this namespace.
    :param ethernet: its frames have an Ethernet header.
    """

    ifindex: int
    name: str
    mac: str = ""
    up: bool = False
    running: bool = False
    mtu: int = 0
    alias: str = ""
    kind: str = ""
    peer: int = 0
    elsewhere: bool = False
    master: int = 0
    loopback: bool = False
    ethernet: bool = True


@frozen(kw_only=True)
class Veth:
    """A pair to be made: `name` here, `peer_name` in the namespace that the descriptor `peer_netns` refers to, or here."""

    name: str
    mac: str
    peer_name: str
    peer_mac: str
    peer_netns: int | None
    mtu: int = 1500


@frozen
class InterfaceAddress:
    """An address of an interface. IPv6 ones are made without duplicate address detection."""

    ifindex: int
    address: Address
    prefix_length: int
    scope: int = SCOPE_GLOBAL


@frozen
class Neighbour:
    """A permanent neighbour: the address is reached at this MAC, and nobody is asked."""

    ifindex: int
    address: Address
    mac: str


@frozen
class Route:
    """A unicast route of the main table.

    :param gateway: None when the destination is on the link itself. A gateway is taken to be on the link, whatever the
        interface's addresses say.
    """

    ifindex: int
    destination: Network
    gateway: Address | None = None


@frozen(kw_only=True)
class DefaultRoute:
    """One next hop of a default route of the main table.

    :param source: the address that the node prefers for what it sends by it; None: whichever.
    """

    ifindex: int
    version: int
    gateway: Address | None = None
    source: Address | None = None


@frozen(kw_only=True)
class DeviceAddress:
    """An address of global scope, as one to be used.

    :param ready: it may be used now: not waiting for, nor failed, the detection of duplicates (RFC 4862 5.4).
    :param deprecated: no new connections should have it (RFC 4862 5.5.4).
    :param secondary: there is a primary one of its network; of IPv6: a temporary one (RFC 8981).
    """

    ifindex: int
    address: Address
    prefix_length: int
    ready: bool = True
    deprecated: bool = False
    secondary: bool = False


Fact = InterfaceAddress | Neighbour | Route
