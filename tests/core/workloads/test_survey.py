"""What became of an endpoint: every combination of what is on record and what is there."""

from __future__ import annotations

import attrs
import pytest

from axoneme.core.net.model import Link
from axoneme.core.workloads.endpoints import EndpointState
from axoneme.core.workloads.network import Seen
from axoneme.core.workloads.records import Record
from axoneme.core.workloads.survey import Finding, Verdict, judge, leftovers

ALIAS = "axoneme:a:7"
RECORD = Record(
    id=7, name="one", namespace="default", netns="/run/netns/x", netns_device=4, netns_inode=1000, managed=True,
    ifname="axo7", ifindex=70, peer=2, mac="02:00:00:00:00:01", node_mac="02:00:00:00:00:02",
    state=EndpointState.READY,
)  # fmt: skip
LINK = Link(ifindex=70, name="axo7", mac=RECORD.node_mac, alias=ALIAS, kind="veth", peer=2)
UNMARKED = attrs.evolve(LINK, alias="")
STRANGER = attrs.evolve(LINK, alias="axoneme:b:7")
STRANGERS_MAC = attrs.evolve(LINK, alias="", mac="02:00:00:00:00:99")
NO_VETH = attrs.evolve(LINK, kind="dummy")
HERE, OTHER = (4, 1000), (4, 1001)


@pytest.mark.parametrize(
    ("state", "netns", "link", "verdict", "ours"),
    [
        (EndpointState.READY, HERE, LINK, Verdict.ADOPT, True),
        (EndpointState.READY, HERE, UNMARKED, Verdict.ADOPT, True),
        (EndpointState.READY, HERE, None, Verdict.REBUILD, False),
        (EndpointState.READY, HERE, STRANGER, Verdict.FOREIGN, False),
        (EndpointState.READY, HERE, STRANGERS_MAC, Verdict.FOREIGN, False),
        (EndpointState.READY, HERE, NO_VETH, Verdict.FOREIGN, False),
        (EndpointState.READY, None, LINK, Verdict.VANISHED, True),
        (EndpointState.READY, OTHER, LINK, Verdict.VANISHED, True),
        (EndpointState.READY, OTHER, STRANGER, Verdict.VANISHED, False),
        (EndpointState.READY, None, None, Verdict.VANISHED, False),
        (EndpointState.CREATING, HERE, LINK, Verdict.UNFINISHED, True),
        (EndpointState.CREATING, None, None, Verdict.UNFINISHED, False),
        (EndpointState.CREATING, HERE, STRANGER, Verdict.UNFINISHED, False),
        (EndpointState.REMOVING, HERE, UNMARKED, Verdict.UNFINISHED, True),
    ],
)
def test_judgement(
    state: EndpointState, netns: tuple[int, int] | None, link: Link | None, verdict: Verdict, ours: bool
) -> None:
    finding = judge(attrs.evolve(RECORD, state=state), netns, link, ALIAS)
    assert (finding.verdict, finding.link) == (verdict, link if ours else None)


def test_leftovers_bear_our_mark_and_have_no_record() -> None:
    links = [
        LINK,
        attrs.evolve(LINK, ifindex=71, name="axo8", alias="axoneme:a:8"),
        attrs.evolve(LINK, ifindex=72, name="axo9", alias="axoneme:b:9"),
        attrs.evolve(LINK, ifindex=73, name="axo10", alias=""),
        attrs.evolve(LINK, ifindex=74, name="axo11", alias="axoneme:a"),
        attrs.evolve(LINK, ifindex=75, name="axohub", alias="axoneme:a:hub"),
    ]
    seen = Seen({link.name: link for link in links}, frozenset())
    found = leftovers([Finding(RECORD, Verdict.ADOPT, LINK)], seen, "a")
    assert [link.name for link in found] == ["axo8"]
