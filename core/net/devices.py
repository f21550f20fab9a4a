"""The node's devices: by which of its interfaces it reaches other nodes and the world, and why not by the others.

Automatic devices are chosen as Cilium does (`isSelectedDevice` of its devices controller): what is up, has an address or a
default route, and belongs to nothing else. Where one has to guess, this is more careful: a kind of interface that mostly
leads to something on the node itself (a bridge, a tunnel, one end of a pair) is only used if the node's default route leads
out by it, and what has no Ethernet header never is, since the programs expect one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from attrs import evolve, field, frozen

from axoneme.core.net.model import Address, DefaultRoute, DeviceAddress, Link
from axoneme.core.records import TableSpec
from axoneme.core.settings import AUTOMATIC

#: How many devices may be used: the maps of the programs have room for so many.
LIMIT = 256

#: How the alias of every interface begins that an agent made.
_OURS = "axoneme:"

#: Kinds (`ip link … type`) that lead out of the node by nature; the drivers of cards have none.
_OUTWARD = frozenset({"", "bond", "team", "vlan", "macvlan", "ipvlan"})
_CARDS = frozenset({"", "bond"})


@frozen(kw_only=True)
class Device:
    """An interface of the node, except for those that agents made.

    :param addresses: under which the node may be known there, those first that are best to leave under.
    :param used: the programs for the node's devices are meant for it.
    :param named: the configuration names it.
    :param why: the reason why it is used or why it is not, in words.
    :param card: a card's own driver serves it and nothing shares it, so that XDP can do what it wants there.
    """

    ifindex: int
    name: str
    kind: str = ""
    addresses: tuple[Address, ...] = ()
    used: bool
    named: bool = False
    why: str
    card: bool = False


DEVICES = TableSpec(
    name="devices",
    row=Device,
    key="ifindex",
    indexes=("name",),
    doc="interfaces of the node: which are used towards the world, and why the others are not",
)


@frozen(kw_only=True)
class Seen:
    """What a network namespace has.

    :param links: by index.
    """

    links: Mapping[int, Link] = field(factory=dict)
    addresses: Sequence[DeviceAddress] = ()
    defaults: Sequence[DefaultRoute] = ()


def is_pattern(entry: str) -> bool:
    return any(mark in entry for mark in "*?[")


def choose(wanted: Collection[str], seen: Seen) -> list[Device]:
    """A row for each interface that no agent made.

    :param wanted: names, patterns as a shell has them, and `AUTOMATIC`.
    """
    links = seen.links.values()
    found = [_device(link, wanted, seen) for link in links if not _made_by_agent(link, seen.links)]
    outward = {route.ifindex for route in seen.defaults}
    used = [device for device in found if device.used]
    used.sort(key=lambda device: (not device.named, device.ifindex not in outward))
    beyond = {device.ifindex for device in used[LIMIT:]}
    why = f"there are more than {LIMIT}"
    return [evolve(each, used=False, why=why) if each.ifindex in beyond else each for each in found]


def missing(wanted: Iterable[str], devices: Iterable[Device]) -> list[str]:
    """The names among `wanted` that no device has."""
    names = {device.name for device in devices}
    return [entry for entry in wanted if entry != AUTOMATIC and not is_pattern(entry) and entry not in names]


def _made_by_agent(link: Link, links: Mapping[int, Link]) -> bool:
    """A workload's interface, or one of the two halves of a hub."""
    peer = links.get(link.peer) if link.kind == "veth" and not link.elsewhere else None
    return any(each is not None and each.alias.startswith(_OURS) for each in (link, peer))


def _device(link: Link, wanted: Collection[str], seen: Seen) -> Device:
    routes = [route for route in seen.defaults if route.ifindex == link.ifindex and link.up]
    addresses = _addresses(link.ifindex, seen.addresses, routes)
    named = any(entry != AUTOMATIC and fnmatchcase(link.name, entry) for entry in wanted)
    refused = _impossible(link)
    if named:
        why = refused or "named in datapath.devices"
    elif AUTOMATIC in wanted:
        refused = refused or _unfit(link, seen.links, addresses, bool(routes))
        why = refused or ("has a default route" if routes else "has an address of this node")
    else:
        why = refused = refused or "not named in datapath.devices"
    return Device(
        ifindex=link.ifindex,
        name=link.name,
        kind=link.kind,
        addresses=addresses,
        used=not refused,
        named=named,
        why=why,
        card=link.kind in _CARDS and not _has_vlans(link, seen.links),
    )


def _impossible(link: Link) -> str:
    """Why it cannot even be used when somebody names it; empty if it can."""
    if link.loopback:
        return "loopback"
    return "" if link.ethernet else f"{link.kind or 'its'} frames have no Ethernet header"


def _unfit(link: Link, links: Mapping[int, Link], addresses: Sequence[Address], default: bool) -> str:
    """Why it is not used by itself; empty if it is."""
    if not link.up:
        return "down"
    if link.master:
        master = links.get(link.master)
        return f"belongs to {master.name if master else link.master}"
    if default:
        return ""
    if not addresses:
        return "neither an address nor a default route"
    return "" if link.kind in _OUTWARD else f"{link.kind} without a default route"


def _has_vlans(link: Link, links: Mapping[int, Link]) -> bool:
    return any(each.kind == "vlan" and each.peer == link.ifindex for each in links.values())


def _addresses(
    ifindex: int, addresses: Iterable[DeviceAddress], routes: Sequence[DefaultRoute]
) -> tuple[Address, ...]:
    """Those of the device, and without one of a family the one that its default route prefers.

    First what the default route prefers, then what is in one network with its gateway, then what the world can answer to, and
    permanent ones before temporary ones, which come and go. Among equals the kernel's order holds.
    """
    own = [each for each in addresses if each.ifindex == ifindex and each.ready]
    preferred = {route.source for route in routes if route.source is not None}
    gateways = [route.gateway for route in routes if route.gateway is not None]

    def rank(each: DeviceAddress) -> tuple[bool, ...]:
        return (
            each.deprecated,
            each.address not in preferred,
            not any(_together(each, gateway) for gateway in gateways),
            each.address.version == 6 and each.address.is_private,
            each.secondary,
        )

    found = [each.address for each in sorted(own, key=rank)]
    families = {address.version for address in found}
    borrowed = [source for source in sorted(preferred, key=str) if source.version not in families]
    return (*found, *borrowed)


def _together(each: DeviceAddress, gateway: Address) -> bool:
    """Whether a gateway is in the network of an address. Link-local ones, which IPv6 has, tell nothing."""
    shift = each.address.max_prefixlen - each.prefix_length
    return each.address.version == gateway.version and int(each.address) >> shift == int(gateway) >> shift
