"""Sysctls are written where the calling thread is, and only when they differ."""

from __future__ import annotations

import pytest

from axoneme.core.errors import KernelError
from axoneme.core.net import host, sysctl
from axoneme.core.testing.namespaces import Namespaces, within

FORWARD = "net/ipv4/ip_forward"


@pytest.mark.kernel
def test_each_namespace_has_its_own(namespaces: Namespaces) -> None:
    one, other = namespaces.make(), namespaces.make()
    before = sysctl.read(FORWARD)
    within(one, lambda: sysctl.write(FORWARD, 1))
    within(other, lambda: sysctl.write(FORWARD, 0))
    assert within(one, lambda: sysctl.read(FORWARD)) == "1"
    assert within(other, lambda: sysctl.read(FORWARD)) == "0"
    assert sysctl.read(FORWARD) == before


@pytest.mark.kernel
def test_only_what_differs_is_written(namespaces: Namespaces) -> None:
    name = namespaces.make()
    within(name, lambda: sysctl.write(FORWARD, 0))
    assert within(name, lambda: sysctl.ensure(FORWARD, 1))
    assert not within(name, lambda: sysctl.ensure(FORWARD, 1))


def test_what_is_not_there() -> None:
    assert sysctl.read("net/no/such/thing") is None
    with pytest.raises(KernelError, match="cannot set sysctl net/no/such/thing to 1"):
        sysctl.write("net/no/such/thing", 1)


@pytest.mark.kernel
def test_the_host_is_prepared_once(namespaces: Namespaces) -> None:
    name = namespaces.make()
    within(name, lambda: sysctl.write(FORWARD, 0))
    within(name, lambda: sysctl.write("net/ipv6/conf/all/forwarding", 0))
    assert within(name, host.prepare_host) == [FORWARD, "net/ipv6/conf/all/forwarding"]
    assert within(name, host.prepare_host) == []
