"""The world outside: prefixes and addresses of names get identities, share them, and give them back."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from axoneme.core.state.table import State
from axoneme.core.workloads.endpoints import IDENTITIES, TABLES, IpcacheEntry
from axoneme.core.workloads.endpoints import Identity as IdentityRow
from axoneme.core.workloads.ipcache import Ipcache
from axoneme.plugins.policy.language import parse_policy
from axoneme.plugins.policy.model import Network, Policy
from axoneme.plugins.policy.prefixes import world_labels
from axoneme.plugins.policy.world import World, WorldChange


def policy(*peers: dict[str, Any], name: str = "p") -> Policy:
    value = {
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name},
        "spec": {"endpointSelector": {}, "egress": list(peers)},
    }
    parsed = parse_policy(value)
    assert isinstance(parsed, Policy)
    return parsed


def names(*patterns: str) -> dict[str, Any]:
    return {"toFQDNs": [{"matchPattern": pattern} for pattern in patterns]}


class Place:
    """A world whose kernel follows the table at once."""

    def __init__(self, folder: Path) -> None:
        self.state = State(TABLES)
        self.ipcache = Ipcache(self.state, dual_stack_world=True)
        self.world = World.open(self.state, self.ipcache, folder, self._behind)

    def _behind(self, prefix: Network) -> int | None:
        row = self.state.table("ipcache", IpcacheEntry).get(prefix)
        return None if row is None else row.identity

    async def make(self, change: WorldChange) -> WorldChange:
        await self.world.enter(change)
        await self.world.leave(change)
        self.world.forget(change)
        return change

    @property
    def identities(self) -> dict[Network, tuple[str, ...]]:
        """The labels of the identity behind each prefix, as everybody can read them."""
        table = self.state.table(IDENTITIES.name, IdentityRow)
        found = {}
        for row in self.state.table("ipcache", IpcacheEntry):
            identity = table.get(row.identity)
            assert identity is not None, "no prefix has an identity that is over"
            found[row.prefix] = identity.labels
        return found


async def test_addresses_of_a_name_share_an_identity_until_the_last_one_goes(tmp_path: Path) -> None:
    place, addresses = Place(tmp_path), [ip_address(f"192.0.2.{n}") for n in range(4)]
    await place.make(place.world.change([policy(names("*.a.io"))], ()))
    for address in addresses:
        place.world.dns.add("www.a.io", address)
        place.world.dns.add("b.io", address)
    change = await place.make(place.world.change_names())
    assert len({one.number for one in change.added.values()}) == 1
    assert set(place.identities.values()) == {("fqdn:*.a.io", "reserved:world-ipv4")}
    for address in addresses[:3]:
        place.world.dns.remove("www.a.io", address)
    change = await place.make(place.world.change_names())
    assert (len(change.removed), change.ended) == (3, ())
    place.world.dns.remove("www.a.io", addresses[3])
    change = await place.make(place.world.change_names())
    assert [one.labels for one in change.ended] == [("fqdn:*.a.io", "reserved:world-ipv4")]
    assert place.identities == {}
    assert place.world.change_names().is_empty


async def test_an_address_that_a_policy_names_itself_keeps_its_prefix(tmp_path: Path) -> None:
    place, address = Place(tmp_path), ip_address("192.0.2.1")
    rules = [policy(names("a.io"), {"toCIDR": ["192.0.2.1/32", "192.0.2.0/24"]})]
    await place.make(place.world.change(rules, ()))
    place.world.dns.add("a.io", address)
    await place.make(place.world.change_names())
    both = ("cidr:192.0.2.0/24", "cidr:192.0.2.1/32", "fqdn:a.io", "reserved:world-ipv4")
    assert set(place.identities[ip_network(address)]) >= {*both[1:]}
    place.world.dns.remove("a.io", address)
    await place.make(place.world.change_names())
    assert "cidr:192.0.2.1/32" in place.identities[ip_network(address)]
    assert "fqdn:a.io" not in place.identities[ip_network(address)]


NAMES, PATTERNS = ("a.io", "w.a.io", "b.io"), ("*.a.io", "a.io", "*", "c.io")
ADDRESSES = tuple(ip_address(one) for one in ("192.0.2.1", "192.0.2.9", "2001:db8::1"))
PEERS = (
    *(names(pattern) for pattern in PATTERNS),
    {"toCIDR": ["192.0.2.0/29"]}, {"toCIDR": ["192.0.2.1/32"]}, {"toCIDR": ["2001:db8::/32"]},
)  # fmt: skip
changes = st.lists(
    st.one_of(
        st.tuples(st.just("policies"), st.sets(st.integers(0, len(PEERS) - 1))),
        st.tuples(st.sampled_from(["add", "remove"]), st.sampled_from(NAMES), st.sampled_from(ADDRESSES)),
    ),
    max_size=12,
)


@settings(max_examples=60)
@given(changes)
def test_any_order_of_changes_ends_where_a_fresh_start_does(given: list[Any]) -> None:
    async def run(folder: Path) -> None:
        place, rules, known = Place(folder), [], set()
        for what, *rest in given:
            if what == "policies":
                rules = [policy(PEERS[index], name=str(index)) for index in sorted(rest[0])]
                await place.make(place.world.change(rules, ()))
                continue
            getattr(place.world.dns, what)(*rest)
            (known.add if what == "add" else known.discard)(tuple(rest))
            await place.make(place.world.change_names())
            assert place.identities == expected(rules, known)
        assert place.identities == expected(rules, known)

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))


def expected(rules: Iterable[Policy], known: set[Any]) -> dict[Network, tuple[str, ...]]:
    resolved: dict[str, list[Any]] = {}
    for name, address in known:
        resolved.setdefault(name, []).append(address)
    return world_labels(rules, (), resolved)
