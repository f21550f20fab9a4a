"""Hosts for whole agents: several at once, each on its own, and nothing left of any."""

from __future__ import annotations

import pytest

from axoneme.core.net import namespaces
from axoneme.core.testing.node import Node, NodeError

pytestmark = pytest.mark.kernel


def test_two_at_once_do_not_meet_and_leave_nothing() -> None:
    with Node() as one, Node() as two:
        one.start()
        two.start()
        first, second = one.workload("web"), two.workload("web")
        assert first.addresses == second.addresses, "each has the whole pool"
        assert first.netns != second.netns
        assert len(one.call("endpoint.list")) == len(two.call("endpoint.list")) == 1
        one.kill9()
        assert two.problems() == []
    for node in (one, two):
        assert not node.folder.exists()
        assert not node.bpffs.exists()
        assert not [name for name in namespaces.names() if node.name in name or name == node.netns]
        assert node.process is not None
        assert node.process.returncode is not None


def test_an_agent_that_does_not_start_is_told_with_its_log() -> None:
    with Node({"datapath": {"conntrack_entries": 1}}) as node, pytest.raises(NodeError, match="1024"):
        node.start()


def mistaken() -> None:
    with Node() as node:
        node.start()
        raise ValueError("mistake")


def test_an_error_inside_brings_the_log_along() -> None:
    with pytest.raises(ValueError, match="mistake") as raised:
        mistaken()
    assert "agent started" in "".join(raised.value.__notes__)
