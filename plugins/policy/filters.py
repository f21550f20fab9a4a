"""From the rules that select a subject to what they say, per peer selector and block of ports.

This is the language's first half: requirements, empty lists, named ports, merging of rules with the same selector and
port, default deny. What comes out (`DirectionPolicy`) depends on no identity: it is the content that a policy number
stands for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import chain

from attrs import define, evolve, field, frozen

from axoneme.core.errors import AxonemeError
from axoneme.plugins.policy.blocks import Block
from axoneme.plugins.policy.matching import Matched
from axoneme.plugins.policy.model import ALL_PORTS, L7, WILDCARD, Direction, Peer, Ports, Requirement
from axoneme.plugins.policy.peers import reserved
from axoneme.plugins.policy.rules import RuleRef
from axoneme.plugins.policy.statements import (
    Entry,
    MergeKey,
    Statement,
    blocks_of,
    content_of,
    statement,
    statements,
)
from axoneme.plugins.policy.subject import Enforcement, NamedPorts, Settings, Subject


class ConflictError(AxonemeError):
    """Rules of a subject that cannot be merged; none of its policy can be resolved."""


@frozen
class DirectionPolicy:
    """Everything that one direction's policy says, in terms of selectors.

    :param entries: per selector (by text) and block what applies; the wildcard's under `WILDCARD.text`.
    :param peers: the selectors by text, without the wildcard.
    :param default: the reason for what no entry decides, allowed only if `open`.
    :param rehearsed: what all policies come to, if some are only rehearsed; then `peers` are those of both.
    :param enforced: some policy (or the configuration) applies to the direction.
    """

    enforced: bool
    open: bool
    default: RuleRef
    peers: tuple[Peer, ...] = ()
    entries: Mapping[str, tuple[tuple[Block, Entry], ...]] = field(factory=dict)
    rehearsed: DirectionPolicy | None = None
    #: What of the entries' content is known as bytes already.
    contents: Mapping[str, bytes] = field(factory=dict, eq=False, repr=False)

    @cached_property
    def digest(self) -> bytes:
        """16 bytes that stand for the content; equal content has equal bytes in every run."""
        parts = [repr((self.enforced, self.open, self.default.key)).encode()]
        for text in sorted(self.entries):
            content = self.contents.get(text)
            parts += (
                b"\0",
                text.encode(),
                b"\0",
                content_of(self.entries[text]) if content is None else content,
            )
        if self.rehearsed is not None:
            parts.append(b"\0\0" + self.rehearsed.digest)
        return hashlib.blake2b(b"".join(parts), digest_size=16, person=b"policy").digest()


def build(
    matched: Sequence[Matched],
    direction: Direction,
    subject: Subject,
    cluster_ports: NamedPorts,
    settings: Settings,
) -> DirectionPolicy:
    """The policy of a subject in one direction. Raises `ConflictError`.

    :param matched: the specs that select the subject, in their order.
    :param cluster_ports: the named ports of all workloads, which named ports in egress rules are looked up in.
    """
    if settings.enforcement is Enforcement.NEVER:
        return _plain_policy(False, True, direction, "enforcement-never")
    present = [one for one in matched if one.speaks(direction)]
    enforced, open_, default = _default(present, direction, subject, settings)
    if not enforced:
        return _plain_policy(False, True, direction, "no-policy")
    ports = subject.ports if direction is Direction.INGRESS else _unambiguous(cluster_ports)
    filters = _Filters(ports, direction)
    filters.take(present)
    if open_:
        filters.allow_all(default)
    if direction is Direction.INGRESS and settings.allow_localhost and not subject.host:
        filters.allow_implied(reserved("host"), RuleRef("", direction.value, "allow-localhost"))
    return filters.policy(enforced, open_, default)


def _plain_policy(enforced: bool, open_: bool, direction: Direction, reason: str) -> DirectionPolicy:
    return DirectionPolicy(enforced, open_, RuleRef("", direction.value, reason))


def rehearsing(direction: Direction) -> DirectionPolicy:
    """Denies nothing: what is enforced where everything is only rehearsed."""
    return _plain_policy(False, True, direction, "audit")


def unresolvable(direction: Direction) -> DirectionPolicy:
    """Denies everything: for a subject whose rules contradict each other and that had no policy before."""
    return _plain_policy(True, False, direction, "unresolvable")


def _default(
    present: Sequence[Matched], direction: Direction, subject: Subject, settings: Settings
) -> tuple[bool, bool, RuleRef]:
    """Whether the direction is enforced, whether it is open to what nobody denies, and who says so."""

    def ref(matched: Matched, reason: str) -> RuleRef:
        return RuleRef(matched.policy.key, direction.value, reason)

    denying = [
        one for one in present if one.spec.direction(direction).default_deny or not settings.non_default_deny
    ]
    if denying:
        return True, False, ref(denying[0], "default-deny")
    if settings.enforcement is Enforcement.ALWAYS and not subject.host:
        return True, False, RuleRef("", direction.value, "enforcement-always")
    if any(label.startswith("reserved:init") for label in subject.labels):
        return True, False, RuleRef("", direction.value, "init")
    if present:
        return True, True, ref(present[0], "default-allow")
    return False, True, RuleRef("", direction.value, "no-policy")


def _unambiguous(ports: NamedPorts) -> NamedPorts:
    return {name: numbers for name, numbers in ports.items() if len(numbers) == 1}


@define
class _Filters:
    """Collects and merges what rules say, by ports as written and by selector text."""

    _ports: NamedPorts
    _direction: Direction
    _merged: dict[MergeKey, Statement] = field(factory=dict)
    _implied: list[Statement] = field(factory=list)

    def take(self, present: Sequence[Matched]) -> None:
        merged = self._merged
        for one in self._statements(present):
            key = one.key
            if key not in merged:
                merged[key] = one
            else:
                old = merged[key]
                merged[key] = evolve(old, entry=merge_rules(old.entry, one.entry))

    def _statements(self, present: Sequence[Matched]) -> Iterable[Statement]:
        direction = self._direction
        if not any(one.has_requires for one in present):
            return chain.from_iterable([one.statements(direction) for one in present])
        requires = {deny: _requires(present, direction, deny) for deny in (False, True)}
        return chain.from_iterable(statements(one.policy, one.spec, direction, requires) for one in present)

    def allow_all(self, ref: RuleRef) -> None:
        one = statement(ALL_PORTS, WILDCARD, Entry(False, (ref,)))
        old = self._merged.get(one.key)
        self._merged[one.key] = one if old is None else evolve(old, entry=merge_rules(old.entry, one.entry))

    def allow_implied(self, peer: Peer, ref: RuleRef) -> None:
        """An allow that is no rule: it is not merged by selector, so it adds no wildcard to layer 7 rules."""
        self._implied.append(statement(ALL_PORTS, peer, Entry(False, (ref,))))

    def policy(self, enforced: bool, open_: bool, default: RuleRef) -> DirectionPolicy:
        entries: dict[str, tuple[tuple[Block, Entry], ...]] = {}
        peers: dict[str, Peer] = {}
        contents: dict[str, bytes] = {}
        tls = {one.ports for one in self._merged.values() if one.entry.l7 and one.entry.l7.kind == "tls"}
        for one in chain(self._merged.values(), self._implied):
            rows = self._rows(one, tls, open_)
            if rows:
                text = one.text
                peers[text] = one.peer
                if text in entries:
                    entries[text] += rows
                    contents.pop(text, None)
                else:
                    entries[text] = rows
                    if rows is one.rows:
                        contents[text] = one.content
        for text, rows in entries.items():
            if text not in contents and len(rows) > 1:
                entries[text] = tuple(sorted(rows, key=_row_order))
        peers.pop(WILDCARD.text, None)
        return DirectionPolicy(
            enforced,
            open_,
            default,
            tuple(peers[text] for text in sorted(peers)),
            entries,
            contents=contents,
        )

    def _rows(self, one: Statement, tls: set[Ports], open_: bool) -> tuple[tuple[Block, Entry], ...]:
        if one.entry.l7 is None and not one.ports.name:
            return one.rows
        entry = _redirected(one.entry, one.ports in tls, open_)
        return tuple((block, entry) for block in self._blocks(one.ports))

    def _blocks(self, ports: Ports) -> Iterable[Block]:
        if not ports.name:
            return blocks_of(ports)
        numbers = self._ports.get((ports.name, ports.protocol), frozenset())
        return [one for number in sorted(numbers) for one in blocks_of(Ports(ports.protocol, number, number))]


def _row_order(row: tuple[Block, Entry]) -> tuple[Block, bytes]:
    """Independent of the order in which rules came."""
    return row[0], row[1].digest


def _redirected(entry: Entry, tls: bool, open_: bool) -> Entry:
    """One port has one redirect: where one selector asks for TLS, layer 7 rules of the others pass through it too.

    Where nobody's default deny is on, layer 7 rules restrict nothing (they still go through the proxy).
    """
    if entry.l7 is None:
        return entry
    shared = "tls" if tls and entry.l7.kind in ("http", "dns") else ""
    wildcard = entry.l7.wildcard or open_
    if (shared, wildcard) == (entry.l7.shared, entry.l7.wildcard):
        return entry
    return evolve(entry, l7=evolve(entry.l7, shared=shared, wildcard=wildcard))


def _requires(present: Sequence[Matched], direction: Direction, deny: bool) -> tuple[Requirement, ...]:
    found = {one for matched in present for one in matched.requires(direction, deny)}
    return tuple(sorted(found, key=lambda one: one.text))


def merge_rules(old: Entry, new: Entry) -> Entry:
    """Merges rules of the same selector and the same ports as written. Raises `ConflictError`."""
    if old.deny or new.deny:
        deniers = tuple(ref for one in (old, new) if one.deny for ref in one.rules)
        return Entry(True, _names(deniers))
    auth = old.auth if new.auth is None else new.auth
    if old.auth is not None and new.auth is not None and old.auth is not new.auth:
        raise ConflictError(
            f"{new.rules[0].policy} {new.rules[0].path} and {old.rules[0].policy} {old.rules[0].path} ask for the"
            f" authentication modes {new.auth.text} and {old.auth.text} for the same peers and ports"
        )
    return Entry(False, _names(old.rules + new.rules), _merge_l7(old, new), auth)


def _names(refs: tuple[RuleRef, ...]) -> tuple[RuleRef, ...]:
    return tuple(sorted(set(refs), key=lambda ref: ref.key))


def _merge_l7(old: Entry, new: Entry) -> L7 | None:
    first, second = old.l7, new.l7
    if first is None or second is None:
        some = first or second
        return None if some is None else evolve(some, wildcard=True)
    if first.kind == second.kind == "crd":
        if first.priority == second.priority and first.listener != second.listener:
            raise _l7_conflict(old, new, f"the listeners {first.listener} and {second.listener}")
        return first if first.priority <= second.priority else second
    for one, other in ((first, second), (second, first)):
        if one.kind == "tls" and other.kind not in ("tls", "dns", "crd"):
            first, second = evolve(other, rules=()), other
    if first.kind != second.kind:
        raise _l7_conflict(old, new, f"the parsers {first.kind} and {second.kind}")
    return evolve(
        first,
        rules=tuple(sorted({*first.rules, *second.rules})),
        wildcard=first.wildcard or second.wildcard,
        context=tuple(sorted({*first.context, *second.context})),
    )


def _l7_conflict(old: Entry, new: Entry, what: str) -> ConflictError:
    return ConflictError(
        f"{new.rules[0].policy} {new.rules[0].path} and {old.rules[0].policy} {old.rules[0].path} ask for {what} for"
        " the same peers and ports"
    )
