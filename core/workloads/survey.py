"""After a restart: what became of each endpoint that is on record."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import TYPE_CHECKING

from attrs import frozen

from axoneme.core.net import namespaces
from axoneme.core.net.model import Link
from axoneme.core.workloads.endpoints import EndpointState
from axoneme.core.workloads.records import Record
from axoneme.core.workloads.wiring import alias_prefix

if TYPE_CHECKING:
    from axoneme.core.workloads.network import Seen


class Verdict(enum.StrEnum):
    #: Its namespace and interface are there: it is taken over as it is, and what is missing is added.
    ADOPT = "adopt"
    #: Its namespace is there, its interface is not: it gets a new one with the same addresses.
    REBUILD = "rebuild"
    #: Its making or its removal was cut short: it is removed. Nobody was told that it is ready.
    UNFINISHED = "unfinished"
    #: Its namespace is gone, or another one is in its place: what is left of it is removed.
    VANISHED = "vanished"
    #: Somebody else's interface has its name.
    FOREIGN = "foreign"


@frozen
class Finding:
    """:param link: its host-side interface, if it is there and ours."""

    record: Record
    verdict: Verdict
    link: Link | None


def judge(record: Record, netns: tuple[int, int] | None, link: Link | None, alias: str) -> Finding:
    """What became of one endpoint.

    :param netns: the identity of what is at the path of its namespace now.
    :param link: the interface that has its name now.
    :param alias: the mark that its interface bears.
    """
    ours = link if link is not None and _is_ours(record, link, alias) else None
    if record.state is not EndpointState.READY:
        return Finding(record, Verdict.UNFINISHED, ours)
    if netns is None or netns != record.netns_identity:
        return Finding(record, Verdict.VANISHED, ours)
    if ours is not None:
        return Finding(record, Verdict.ADOPT, ours)
    return Finding(record, Verdict.REBUILD if link is None else Verdict.FOREIGN, None)


def _is_ours(record: Record, link: Link, alias: str) -> bool:
    """By its mark; one that was made but not marked yet by its MAC address, which is of our making too."""
    return link.kind == "veth" and (link.alias == alias or (not link.alias and link.mac == record.node_mac))


def survey(records: Iterable[Record], seen: Seen, agent: str) -> list[Finding]:
    """What became of all endpoints on record."""
    return [
        judge(
            record,
            namespaces.identity_of(record.netns),
            seen.links.get(record.ifname),
            f"{alias_prefix(agent)}{record.id}",
        )
        for record in records
    ]


def leftovers(findings: Iterable[Finding], seen: Seen, agent: str) -> list[Link]:
    """Interfaces with our mark that no endpoint on record has."""
    known = {finding.link.ifindex for finding in findings if finding.link is not None}
    prefix = alias_prefix(agent)
    marked = [link for link in seen.links.values() if link.alias.startswith(prefix)]
    return [
        link for link in marked if link.ifindex not in known and link.alias.removeprefix(prefix).isdecimal()
    ]
