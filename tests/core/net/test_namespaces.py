"""Namespaces are made, entered, told apart and removed; nothing of anybody else is touched."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from axoneme.core.net import namespaces
from axoneme.core.net.namespaces import NamespaceError
from axoneme.core.testing.namespaces import Namespaces, unique


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", "a b", "x" * 300, "a\0b"])
def test_impossible_names_are_refused(name: str) -> None:
    with pytest.raises(NamespaceError):
        namespaces.locate(name)


def test_a_path_and_a_name() -> None:
    assert namespaces.locate("blue") == "/run/netns/blue"
    assert namespaces.locate("/proc/1/ns/net") == "/proc/1/ns/net"


def test_what_is_no_namespace() -> None:
    with pytest.raises(NamespaceError, match="is not a network namespace"):
        namespaces.open_namespace("/etc/hostname")
    with pytest.raises(NamespaceError, match="is not a network namespace"):
        namespaces.open_namespace("/proc/self/ns/mnt")
    with pytest.raises(NamespaceError, match="there is no network namespace"):
        namespaces.open_namespace("/run/netns/no-such-one")
    assert namespaces.identity_of("/run/netns/no-such-one") is None


@pytest.mark.kernel
def test_create_visit_delete(namespaces: Namespaces) -> None:
    from axoneme.core.net import namespaces as ns

    name = namespaces.make()
    assert name in ns.names()
    with ns.opened(name) as opened:
        inside = opened.visit(ns.host_identity)
        assert inside == opened.identity == ns.identity_of(opened.path)
        assert inside != ns.host_identity()
        assert opened.visit(lambda: os.listdir("/proc/thread-self/net/dev_snmp6")) == ["lo"]
    assert ns.delete(name)
    assert not ns.delete(name)
    assert name not in ns.names()


@pytest.mark.kernel
def test_a_taken_name_is_left_alone(namespaces: Namespaces) -> None:
    from axoneme.core.net import namespaces as ns

    name = namespaces.make()
    before = ns.identity_of(ns.locate(name))
    with pytest.raises(NamespaceError, match="already"):
        ns.create(name)
    assert ns.identity_of(ns.locate(name)) == before


@pytest.mark.kernel
def test_a_failed_preparation_leaves_nothing() -> None:
    name = unique("axt")

    def fail() -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        namespaces.create(name, fail)
    assert name not in namespaces.names()


@pytest.mark.kernel
def test_visits_raise_what_is_raised_and_leave_no_thread(namespaces: Namespaces) -> None:
    from axoneme.core.net import namespaces as ns

    before = threading.active_count()
    with ns.opened(namespaces.make()) as opened, pytest.raises(ZeroDivisionError):
        opened.visit(lambda: 1 // 0)
    assert threading.active_count() == before


@pytest.mark.kernel
def test_removal_reaches_other_mount_namespaces(namespaces: Namespaces) -> None:
    """Else a namespace lived on in the mount namespace of every service that was started while it had its name."""
    name = namespaces.make()
    text = Path("/proc/self/mountinfo").read_text()
    line = next(line for line in text.splitlines() if line.split()[4] == "/run/netns")
    assert "shared:" in line
    assert any(line.split()[4] == f"/run/netns/{name}" for line in text.splitlines())
