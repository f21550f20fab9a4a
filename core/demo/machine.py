"""The machine that a demo plays on, made of network namespaces: of the real one it touches nothing.

node      where the agent runs, and this process with it
outside   a host of the world, at the other end of the node's uplink
cgroup    whose sockets the agent's programs for sockets see; empty but for moments
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Final

from attrs import frozen

from axoneme.core.errors import KernelError
from axoneme.core.net import messages, namespaces
from axoneme.core.net.model import Address, InterfaceAddress, Network, Route, Veth
from axoneme.core.net.namespaces import Namespace
from axoneme.core.net.rtnl import Rtnl

UPLINK: Final = "uplink"

#: Prefixes for documentation (RFC 5737, RFC 3849): they are nobody's.
NODE: Final = {4: ip_address("192.0.2.1"), 6: ip_address("2001:db8::1")}
OUTSIDE: Final = {4: ip_address("192.0.2.2"), 6: ip_address("2001:db8::2")}
_LENGTHS: Final = {4: 24, 6: 64}
#: Whatever services get for the world, the world finds at the node.
POOLS: Final = {4: ip_network("203.0.113.0/29"), 6: ip_network("2001:db8:203::/125")}

_MACS: Final = ("02:00:00:00:00:01", "02:00:00:00:00:02")
_CGROUP: Final = Path("/proc/self/cgroup")


@frozen(kw_only=True)
class Machine:
    """What there is while a demo runs.

    :param outside: the path of the outside host's namespace.
    :param cgroup: None where this machine has none, or lets nobody make one.
    :param home: the namespace of the real machine.
    """

    outside: str
    cgroup: Path | None
    home: Namespace

    @contextlib.contextmanager
    def in_cgroup(self) -> Iterator[None]:
        """Sockets made meanwhile are seen by the agent's programs for sockets, for as long as they live."""
        if self.cgroup is None:
            yield
            return
        before = _own_cgroup(self.cgroup.parent)
        _move(self.cgroup)
        try:
            yield
        finally:
            _move(before)


@contextlib.contextmanager
def made(name: str) -> Iterator[Machine]:
    """Makes it, moves this thread to its node, and takes everything away again.

    :param name: of the demo.
    """
    node, outside = names(name)
    with contextlib.ExitStack() as steps:
        steps.callback(remove, name)
        namespaces.create(node, _loopback_up)
        path = namespaces.create(outside, _loopback_up)
        cgroup = _make_cgroup(name)
        home = steps.enter_context(namespaces.inside(node))
        _connect(path)
        yield Machine(outside=path, cgroup=cgroup, home=home)


def names(name: str) -> tuple[str, str]:
    """The namespaces of the node and of the outside host."""
    return f"axo-{name}-node", f"axo-{name}-outside"


def remove(name: str) -> None:
    """Takes away what a demo of this name made or left."""
    for netns in names(name):
        namespaces.delete(netns)
    with contextlib.suppress(OSError, KernelError):
        _cgroup(name).rmdir()


def _loopback_up() -> None:
    with Rtnl() as rtnl:
        rtnl.request([messages.set_up(1)])


def _connect(outside: str) -> None:
    """A cable from the node to the outside host, with addresses at both ends."""
    with Rtnl() as rtnl, namespaces.opened(outside) as there:
        veth = Veth(
            name=UPLINK, mac=_MACS[0], peer_name="eth0", peer_mac=_MACS[1], peer_netns=there.descriptor
        )
        rtnl.request([messages.create_veth(veth)])
        _address(rtnl, UPLINK, NODE)
        there.visit(_prepare_outside)


def _prepare_outside() -> None:
    with Rtnl() as rtnl:
        index = _address(rtnl, "eth0", OUTSIDE)
        routes = [Route(index, POOLS[family], NODE[family]) for family in (4, 6)]
        rtnl.request([messages.add(route) for route in routes])


def _address(rtnl: Rtnl, device: str, addresses: dict[int, Address]) -> int:
    """Brings a device up with these addresses; returns its index."""
    index = messages.read_link(rtnl.request([messages.get_link(name=device)])[0][0]).ifindex
    facts = [InterfaceAddress(index, one, _LENGTHS[family]) for family, one in addresses.items()]
    rtnl.request([messages.set_up(index), *(messages.add(fact) for fact in facts)])
    return index


def network(family: int) -> Network:
    """Where node and outside host are neighbours."""
    return ip_network(f"{NODE[family]}/{_LENGTHS[family]}", strict=False)


def _cgroup(name: str) -> Path:
    from axoneme.core.datapath.placement import cgroup_root

    return cgroup_root() / f"axoneme-{name}"


def _make_cgroup(name: str) -> Path | None:
    try:
        made = _cgroup(name)
        made.mkdir(exist_ok=True)
        (made / "cgroup.procs").open("a").close()  # whether one may move there at all
    except (OSError, KernelError):
        return None
    return made


def _own_cgroup(root: Path) -> Path:
    """The cgroup (version 2) that this process is in."""
    for line in _CGROUP.read_text().splitlines():
        number, _, path = line.split(":", 2)
        if number == "0":
            return root / path.strip("/")
    return root


def _move(cgroup: Path) -> None:
    (cgroup / "cgroup.procs").write_text("0")
