"""The node's own addresses, and the news of their coming and going."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from axoneme.core.net import host, messages
from axoneme.core.net.model import SCOPE_LINK, InterfaceAddress
from axoneme.core.net.rtnl import Rtnl
from axoneme.core.testing.namespaces import Namespaces, within


@pytest.mark.kernel
def test_addresses_of_global_scope_are_the_nodes(namespaces: Namespaces) -> None:
    def run() -> None:
        four, six = ip_address("10.6.0.1"), ip_address("fd06::1")
        with Rtnl() as rtnl, Rtnl(host.ADDRESS_GROUPS) as news:
            assert host.node_addresses(rtnl) == set()
            rtnl.request([messages.add(InterfaceAddress(1, ip_address("fe80::6"), 64, SCOPE_LINK))])
            assert not host.address_changes(news)
            facts = [InterfaceAddress(1, four, 32), InterfaceAddress(1, six, 128)]
            rtnl.request([messages.add(fact) for fact in facts])
            assert host.address_changes(news)  # of the IPv6 address the kernel tells once more, when it likes
            assert host.node_addresses(rtnl) == {four, six}
            rtnl.request([messages.delete(facts[0])])
            assert host.address_changes(news)
            assert host.node_addresses(rtnl) == {six}

    within(namespaces.make(), run)
