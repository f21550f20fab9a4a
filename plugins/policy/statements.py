"""What one rule says, taken apart: per peer selector and range of ports one statement.

Statements depend on the rule alone, so they are made once and shared by all subjects that the rule's policy selects.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from functools import lru_cache

from attrs import astuple, frozen

from axoneme.plugins.policy.blocks import Block, blocks
from axoneme.plugins.policy.model import (
    ALL_PORTS,
    L7,
    WILDCARD,
    Auth,
    Direction,
    Peer,
    PeerRule,
    Policy,
    PortRule,
    Ports,
    Requirement,
    Selector,
    Spec,
    derived,
)
from axoneme.plugins.policy.rules import RuleRef

_BLOCK = struct.Struct("<BBH")
blocks_of = lru_cache(4096)(blocks)


def hashed(content: str) -> bytes:
    """16 bytes that stand for a content; equal in every run."""
    return hashlib.blake2b(content.encode(), digest_size=16).digest()


def packed(block: Block) -> bytes:
    return _BLOCK.pack(*block)


def _verdict_digest(verdict: Verdict) -> bytes:
    auth = -1 if verdict.auth is None else int(verdict.auth)
    l7 = "" if verdict.l7 is None else repr(verdict.l7)
    would = "" if verdict.would is None else verdict.would.digest.hex()
    return hashed(f"{verdict.allow:d}{verdict.default:d}{auth}{verdict.rule.key}\0{l7}\0{would}")


@frozen
class Verdict:
    """The decision for one class of peers and one block of ports.

    :param auth: the mode to be met; `DISABLED` only if a rule says so.
    :param rule: the rule that decided.
    :param default: no rule spoke of the traffic.
    :param would: the denial that would take its place if the rehearsed policies were enforced; see audit.py.
    :ivar digest: 16 bytes that stand for the content.
    """

    allow: bool
    rule: RuleRef
    auth: Auth | None = None
    l7: L7 | None = None
    default: bool = False
    would: Verdict | None = None
    digest: bytes = derived(_verdict_digest)


def _entry_digest(entry: Entry) -> bytes:
    if len(entry.rules) == 1:
        return entry.verdict.digest
    l7 = None if entry.l7 is None else astuple(entry.l7)
    auth = None if entry.auth is None else int(entry.auth)
    return hashed(repr((entry.deny, [ref.key for ref in entry.rules], l7, auth)))


def _entry_verdict(entry: Entry) -> Verdict:
    if entry.deny:
        return Verdict(False, entry.rules[0])
    return Verdict(True, entry.rules[0], entry.auth, entry.l7)


@frozen
class Entry:
    """What the rules with one selector say about one block of ports.

    :param rules: the rules merged into it, in the order of their names.
    :param auth: None unless a rule names a mode.
    :ivar strength: how strongly the entry pulls traffic to its proxy; 0 without one.
    :ivar verdict: the decision where nothing else has a say.
    :ivar digest: 16 bytes that stand for the content.
    """

    deny: bool
    rules: tuple[RuleRef, ...]
    l7: L7 | None = None
    auth: Auth | None = None
    strength: int = derived(lambda entry: 0 if entry.l7 is None else 1000 - entry.l7.priority)
    verdict: Verdict = derived(_entry_verdict)  # noqa: RUF009 - it makes a field, not a verdict
    digest: bytes = derived(_entry_digest)


#: What rules must agree on to be merged: the ports as written, and the selector's text.
MergeKey = tuple[int, int, int, str, str]


def content_of(rows: Iterable[tuple[Block, Entry]]) -> bytes:
    """Bytes that stand for what is said of blocks."""
    return b"".join([packed(block) + entry.digest for block, entry in rows])


def _rows(statement: Statement) -> tuple[tuple[Block, Entry], ...]:
    if statement.ports.name:
        return ()
    return tuple([(block, statement.entry) for block in blocks_of(statement.ports)])


@frozen(eq=False)
class Statement:
    """What one rule says of one peer selector and one range of ports.

    :param key: rules with the same key are merged before anything else.
    :ivar rows: by block; none of a named port, whose number is the subject's affair.
    :ivar content: bytes that stand for the rows.
    """

    key: MergeKey
    ports: Ports
    peer: Peer
    text: str
    entry: Entry
    rows: tuple[tuple[Block, Entry], ...] = derived(_rows)
    content: bytes = derived(lambda one: content_of(one.rows))


def statement(ports: Ports, peer: Peer, entry: Entry) -> Statement:
    text = peer.text
    key = (int(ports.protocol), ports.first, ports.last, ports.name, text)
    return Statement(key, ports, peer, text, entry)


def statements(
    policy: Policy,
    spec: Spec,
    direction: Direction,
    requires: dict[bool, tuple[Requirement, ...]] | None = None,
) -> Iterator[Statement]:
    """What the rules of one direction say.

    :param requires: what the endpoint peers of allow rules (False) and deny rules (True) must meet besides.
    """
    for rule in spec.direction(direction).rules:
        found = _peers_of(rule, requires[rule.deny] if requires else ())
        if found is None and rule.ports is None:
            continue
        ref = RuleRef(policy.key, direction.value, rule.path)
        port_rules = rule.ports if rule.ports is not None else (PortRule((ALL_PORTS,)),)
        entries = [Entry(rule.deny, (ref,), one.l7, rule.auth) for one in port_rules]
        for peer in (WILDCARD,) if found is None else found:
            for port_rule, entry in zip(port_rules, entries, strict=True):
                for ports in port_rule.ports:
                    yield statement(ports, peer, entry)


def _peers_of(rule: PeerRule, requires: tuple[Requirement, ...]) -> tuple[Peer, ...] | None:
    if rule.peers is None:
        return None
    peers: list[Peer] = list(rule.peers)
    if requires:
        for index in range(rule.endpoint_peers):
            peer = peers[index]
            if isinstance(peer, Selector):
                peers[index] = peer.also(requires)
    if any(peer.is_wildcard for peer in peers):
        return (WILDCARD,)
    return tuple(peers)
