"""The numbers and addresses that workloads get: the latter from one pool per family."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from axoneme.core.errors import AxonemeError
from axoneme.core.workloads.endpoints import Address, Network

#: With fewer taken ones than this below the highest one, the highest one was chosen, not given.
_SPARSE = 1 / 16


class PoolError(AxonemeError):
    """A pool that is used up or cannot be one, or an address that it cannot give."""


class Range:
    """The numbers from `first` to `last`, given in rising order.

    Only when the end is reached do freed ones come again, the one freed first before the others, so that what still refers
    to a freed one does not soon meet another owner. Every operation takes the same time however many are taken.
    """

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last
        self._next = first
        self._taken: set[int] = set()
        self._freed: deque[int] = deque()

    def __len__(self) -> int:
        """How many are taken."""
        return len(self._taken)

    def __contains__(self, number: int) -> bool:
        """Whether a number is taken."""
        return number in self._taken

    def allocate(self) -> int | None:
        """A free number; None when all are taken."""
        while self._next <= self.last:
            number, self._next = self._next, self._next + 1
            if self.claim(number):
                return number
        while self._freed:
            if self.claim(number := self._freed.popleft()):
                return number
        return None

    def claim(self, number: int) -> bool:
        """Takes this very number; False when it is taken already."""
        if number in self._taken:
            return False
        self._taken.add(number)
        return True

    def resume(self, numbers: Iterable[int]) -> None:
        """Takes the numbers of those that were there before a restart, and goes on behind the highest of them.

        Which gaps were freed when is not known any more; they come again after all that is behind, the lowest first.
        """
        self._taken.update(n for n in numbers if self.first <= n <= self.last)
        highest = max(self._taken, default=self.first - 1)
        if len(self._taken) > _SPARSE * (
            highest - self.first
        ):  # else somebody chose a high one: nothing is known of it
            self._freed.extend(n for n in range(self.first, highest) if n not in self._taken)
            self._next = max(self._next, highest + 1)

    def release(self, number: int) -> None:
        """Frees a number; nothing happens if it is not taken."""
        if number in self._taken:
            self._taken.discard(number)
            if number < self._next:
                self._freed.append(number)


class Pool:
    """The addresses of one prefix, given as a `Range` gives numbers.

    The prefix's first address (the subnet, RFC 4291 2.6.1), its second (kept for the node itself) and, for IPv4, its last
    (broadcast) are not given.
    """

    def __init__(self, prefix: Network) -> None:
        self.prefix = prefix
        first = int(prefix.network_address) + 2
        last = int(prefix.broadcast_address) - (1 if prefix.version == 4 else 0)
        if first > last:
            raise PoolError(f"the pool {prefix} has no room for a workload", hint="give it a shorter prefix")
        self._range = Range(first, last)

    def __len__(self) -> int:
        """How many addresses are taken."""
        return len(self._range)

    @property
    def size(self) -> int:
        """How many there are."""
        return self._range.last - self._range.first + 1

    def __contains__(self, address: Address) -> bool:
        """Whether an address is one that this pool gives, taken or not."""
        inside = self._range.first <= int(address) <= self._range.last
        return address.version == self.prefix.version and inside

    def allocate(self) -> Address:
        """A free address. Raises `PoolError` when none is left."""
        if (number := self._range.allocate()) is None:
            raise PoolError(
                f"no address is left in the pool {self.prefix}: all {self.size} are taken",
                hint="remove workloads, or give the agent a larger pool",
            )
        return self._address(number)

    def claim(self, address: Address) -> Address:
        """Takes this very address. Raises `PoolError` when it is taken or not of this pool."""
        if address not in self:
            first, last = self._address(self._range.first), self._address(self._range.last)
            raise PoolError(
                f"{address} is not an address that the pool {self.prefix} gives",
                hint=f"choose one from {first} to {last}",
            )
        if not self._range.claim(int(address)):
            raise PoolError(f"{address} is taken already")
        return address

    def resume(self, addresses: Iterable[Address]) -> None:
        """See `Range.resume`."""
        self._range.resume(int(address) for address in addresses if address in self)

    def release(self, address: Address) -> None:
        """Frees an address; nothing happens if it is not taken."""
        if address in self:
            self._range.release(int(address))

    def _address(self, number: int) -> Address:
        return IPv4Address(number) if self.prefix.version == 4 else IPv6Address(number)


def parse_prefix(text: str, version: int) -> Network:
    """A prefix as people write it → the network. Raises `PoolError` for another family or with host bits set."""
    try:
        network = ip_network(text.strip())
    except ValueError as error:
        raise PoolError(f"{text!r} is not a prefix: {error}") from None
    if network.version != version:
        raise PoolError(f"{text} is not an IPv{version} prefix")
    return network


def parse_address(text: str | Address, version: int) -> Address:
    """An address as people write it → the address. Raises `PoolError` for another family."""
    try:
        address = ip_address(text)
    except ValueError:
        raise PoolError(f"{text!r} is not an IP address") from None
    if address.version != version:
        raise PoolError(f"{text} is not an IPv{version} address")
    return address


class Pools:
    """The pools of both families; either may be missing."""

    def __init__(self, ipv4: str | IPv4Network | None = None, ipv6: str | IPv6Network | None = None) -> None:
        self.by_version: dict[int, Pool] = {}
        for version, prefix in ((4, ipv4), (6, ipv6)):
            if prefix:
                self.by_version[version] = Pool(parse_prefix(str(prefix), version))
        if not self.by_version:
            raise PoolError("there is no address pool", hint="configure pools.ipv4, pools.ipv6, or both")

    def take(self, version: int, wanted: Address | None) -> Address | None:
        """The wanted address or a free one; None when there is no pool of this family and none was wanted."""
        pool = self.by_version.get(version)
        if pool is None:
            if wanted is None:
                return None
            raise PoolError(f"{wanted} cannot be had: there is no IPv{version} pool")
        return pool.allocate() if wanted is None else pool.claim(wanted)

    def resume(self, addresses: Iterable[Address]) -> None:
        """See `Pool.resume`."""
        known = list(addresses)
        for version, pool in self.by_version.items():
            pool.resume(address for address in known if address.version == version)

    def release(self, address: Address) -> None:
        """Frees an address; nothing happens if it is of no pool."""
        if (pool := self.by_version.get(address.version)) is not None:
            pool.release(address)
