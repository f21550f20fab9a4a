"""The host's routing of what goes to a proxy, in a namespace of its own."""

from __future__ import annotations

import subprocess

import pytest

from axoneme.core.datapath.proxies import MARK_MASK, MARK_TO_PROXY
from axoneme.core.net import namespaces, proxyroute
from axoneme.core.testing.namespaces import Namespaces, within

pytestmark = pytest.mark.kernel


def said(netns: str, command: str) -> str:
    arguments = ["nsenter", f"--net={namespaces.locate(netns)}", "ip", *command.split()]
    return subprocess.run(arguments, capture_output=True, text=True, check=True).stdout


def test_it_comes_once_and_goes_without_a_trace() -> None:
    with Namespaces() as owned:
        netns = owned.make()
        before = [said(netns, f"-{version} rule") for version in (4, 6)]
        for _ in range(2):
            within(netns, lambda: proxyroute.ensure(MARK_TO_PROXY, MARK_MASK))
            for version, everything in ((4, "0.0.0.0/0"), (6, "::/0")):
                rules = [
                    line for line in said(netns, f"-{version} rule").splitlines() if line.startswith("9:")
                ]
                assert [" ".join(line.split()) for line in rules] == [
                    "9: from all fwmark 0x200/0xf00 lookup 2004"
                ]
                assert "10:\tfrom all fwmark 0x200/0xf00 prohibit" in said(netns, f"-{version} rule")
                assert said(netns, f"-{version} route show table 2004").startswith("local default dev lo"), (
                    everything
                )
            assert "local 198.51.100.1 dev lo" in said(netns, "route get 198.51.100.1 mark 0x200")
        said(netns, "route flush table 2004")
        with pytest.raises(subprocess.CalledProcessError):
            said(netns, "route get 198.51.100.1 mark 0x200")
        for _ in range(2):
            within(netns, lambda: proxyroute.remove(MARK_TO_PROXY, MARK_MASK))
        assert [said(netns, f"-{version} rule") for version in (4, 6)] == before
        assert said(netns, "route show table all").count("2004") == 0
