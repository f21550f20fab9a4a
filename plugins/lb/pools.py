"""Addresses for services of the type LoadBalancer, out of pools, as Cilium's LB IPAM gives them. Pure.

Who has an address keeps it for as long as a pool that is for it has it, also if nothing new is given from that pool any more. Who asks for certain addresses gets those or none. Services share
an address if they have the same sharing key, their ports differ, and both may share with the other's namespace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import define, field

from axoneme.core.state.resources import Problem
from axoneme.plugins.lb.backends import all_hold
from axoneme.plugins.lb.model import Address, AddressPool, Block, Name, Service, ServiceType

#: Labels that selectors of pools may use besides a service's own.
_NAME, _NAMESPACE = "io.kubernetes.service.name", "io.kubernetes.service.namespace"


@define
class Addresses:
    """Who has which addresses.

    :param classes: values of `loadBalancerClass` that are ours.
    """

    classes: frozenset[str] = frozenset({""})
    pools: dict[str, AddressPool] = field(factory=dict)
    _given: dict[Name, tuple[Address, ...]] = field(factory=dict)
    #: None for a service that had the address before a restart, and was not seen since.
    _users: dict[Address, dict[Name, Service | None]] = field(factory=dict)
    _next: dict[tuple[str, int], int] = field(factory=dict)

    def remember(self, given: Mapping[Name, tuple[Address, ...]]) -> None:
        """What was given before a restart."""
        self._given.update(given)
        for name, addresses in given.items():
            for address in addresses:
                self._users.setdefault(address, {})[name] = None

    @property
    def given(self) -> dict[Name, tuple[Address, ...]]:
        return dict(self._given)

    def of(self, name: Name) -> tuple[Address, ...]:
        return self._given.get(name, ())

    def conflicts(self) -> dict[str, str]:
        """Pools that overlap with another one, which comes first by name: from them, nothing is given."""
        found: dict[str, str] = {}
        names = sorted(self.pools)
        for at, name in enumerate(names):
            for other in names[:at]:
                if other not in found and _overlap(self.pools[name], self.pools[other]):
                    found[name] = other
        return found

    def release(self, name: Name) -> None:
        for address in self._given.pop(name, ()):
            self._leave(name, address)

    def assign(self, service: Service) -> tuple[tuple[Address, ...], list[Problem]]:
        """The addresses of a service, and what it asks for in vain."""
        before = self._given.get(service.key, ())
        self.release(service.key)
        if service.type is not ServiceType.LOAD_BALANCER:
            return (), []
        if service.load_balancer_class not in self.classes:
            text = f"loadBalancerClass {service.load_balancer_class!r} is not ours"
            return (), [Problem(text, service.where)]
        pools = self._pools_for(service)
        kept = [one for one in before if _holds(pools, one) and self._stranger(service, one, before) is None]
        pools = self._giving(pools)
        choose = self._requested if service.pool.requested else self._chosen
        addresses, problems = choose(service, pools, kept)
        if addresses:
            self._given[service.key] = addresses
            for address in addresses:
                self._users.setdefault(address, {})[service.key] = service
        return addresses, problems

    def _pools_for(self, service: Service) -> list[AddressPool]:
        labels = {**service.labels, _NAME: service.name, _NAMESPACE: service.namespace}
        return [pool for _, pool in sorted(self.pools.items()) if all_hold(pool.selector, labels)]

    def _giving(self, pools: list[AddressPool]) -> list[AddressPool]:
        """Those from which new addresses are given."""
        refused = self.conflicts() if len(self.pools) > 1 else {}
        return [pool for pool in pools if not pool.disabled and pool.name not in refused]

    def _requested(
        self, service: Service, pools: list[AddressPool], kept: list[Address]
    ) -> tuple[tuple[Address, ...], list[Problem]]:
        found, problems = [], []
        for address in dict.fromkeys(service.pool.requested):
            if address in kept:
                found.append(address)
            elif not _holds(pools, address):
                problems.append(_problem(service, f"{address} is in no pool that is for this service"))
            elif (user := self._stranger(service, address)) is not None:
                problems.append(_problem(service, f"{address} belongs to {'/'.join(user)}"))
            else:
                found.append(address)
        return tuple(found), problems

    def _chosen(
        self, service: Service, pools: list[AddressPool], kept: list[Address]
    ) -> tuple[tuple[Address, ...], list[Problem]]:
        found, problems = [], []
        families = _families(service, pools, kept)
        has: dict[int, Address] = {one.version: one for one in reversed(kept)}
        for family in families:
            address = has.get(family) or self._free(service, pools, family)
            if address is not None:
                found.append(address)
            else:
                problems.append(_problem(service, f"no pool has a free IPv{family} address for it"))
        if not families:
            problems.append(
                Problem("there is no pool for it", service.where, "add a CiliumLoadBalancerIPPool")
            )
        return tuple(found), problems

    def _free(self, service: Service, pools: list[AddressPool], family: int) -> Address | None:
        if service.pool.sharing_key:
            for address in self._users:
                if (
                    address.version == family
                    and self._stranger(service, address) is None
                    and _holds(pools, address)
                ):
                    return address
        for pool in pools:
            for at, block in enumerate(pool.blocks):
                if block.first.version == family:
                    found = self._unused((f"{pool.name}/{at}", family), block)
                    if found is not None:
                        return found
        return None

    def _unused(self, cursor: tuple[str, int], block: Block) -> Address | None:
        """The next address that nobody has; the search goes on where the last one ended."""
        first, size = int(block.first), int(block.last) - int(block.first) + 1
        start = self._next.get(cursor, 0) % size
        reserved = {address for given in self._given.values() for address in given}
        for step in range(min(size, len(reserved) + 1)):
            offset = (start + step) % size
            address: Address = type(block.first)(first + offset)
            if address not in reserved:
                self._next[cursor] = offset + 1
                return address
        return None

    def _stranger(self, service: Service, address: Address, before: Sequence[Address] = ()) -> Name | None:
        """Somebody who has the address and does not share it with this service.

        :param before: what the service had: who had the same before a restart shared it then.
        """
        for name, user in self._users.get(address, {}).items():
            shares = address in before if user is None else _share(service, user)
            if name != service.key and not shares:
                return name
        return None

    def _leave(self, name: Name, address: Address) -> None:
        users = self._users.get(address, {})
        users.pop(name, None)
        if not users:
            self._users.pop(address, None)


def _share(one: Service, other: Service) -> bool:
    if not one.pool.sharing_key or one.pool.sharing_key != other.pool.sharing_key:
        return False
    if one.external_local != other.external_local:
        return False
    if one.namespace != other.namespace and not (_lets(one, other) and _lets(other, one)):
        return False
    ports = {(port.port, port.protocol) for port in one.ports}
    return not any((port.port, port.protocol) in ports for port in other.ports)


def _lets(one: Service, other: Service) -> bool:
    return any(name in ("*", other.namespace) for name in one.pool.sharing_namespaces)


def _families(service: Service, pools: list[AddressPool], kept: list[Address]) -> list[int]:
    offered: list[int] = sorted({block.first.version for pool in pools for block in pool.blocks})
    wanted = service.families or tuple(sorted({one.version for one in service.cluster_ips}))
    if wanted and (offered or kept):
        return list(wanted)
    return sorted({one.version for one in kept}) or offered[:1]


def _holds(pools: list[AddressPool], address: Address) -> bool:
    return any(address in block for pool in pools for block in pool.blocks)


def _overlap(one: AddressPool, other: AddressPool) -> bool:
    return any(
        a.first.version == b.first.version and int(a.first) <= int(b.last) and int(b.first) <= int(a.last)
        for a in one.blocks
        for b in other.blocks
    )


def _problem(service: Service, message: str) -> Problem:
    return Problem(message, service.where)
