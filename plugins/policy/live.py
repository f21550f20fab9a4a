"""Policies and classes in use: their numbers, their rows, and the writes that a change of them needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

from attrs import define, field, frozen

from axoneme.core.datapath.proxies import Proxy
from axoneme.plugins.policy.audit import RehearsingResolver, resolver_of
from axoneme.plugins.policy.blocks import EVERYTHING, Block
from axoneme.plugins.policy.classes import Signature, positions, signatures
from axoneme.plugins.policy.filters import DirectionPolicy
from axoneme.plugins.policy.model import L7, WILDCARD, Peer
from axoneme.plugins.policy.numbers import Numbers
from axoneme.plugins.policy.pending import Pending
from axoneme.plugins.policy.resolve import Difference, Resolver, digest, digest_of, patched
from axoneme.plugins.policy.rules import RuleBook, RuleRef, digest32
from axoneme.plugins.policy.selectors import Universe
from axoneme.plugins.policy.statements import Verdict
from axoneme.plugins.policy.tables import Action, Flag, Plan, Rows, SubjectEntry, Tables, VerdictValue

#: Which proxy a redirect of each kind needs; every other kind needs a parser.
_PROXIES = {
    "dns": Proxy.DNS,
    "http": Proxy.HTTP,
    "tls": Proxy.TLS,
    "kafka": Proxy.KAFKA,
    "crd": Proxy.LISTENER,
}


@define(eq=False)
class _Class:
    """A class in use: its number, its rows, and how many (policy, signature) pairs use it."""

    digest: bytes
    number: int
    rows: Rows
    users: int = 0


@frozen(eq=False)
class _Group:
    """The identities of one policy with the same signature, as a bitmap. Class None is the policy's default class."""

    class_: _Class | None
    bits: int


@define(eq=False)
class _Live:
    """A policy in use.

    :param groups: the identities that some selector selects.
    :param classes: the classes of those whose class is not the default: the policy's rows in the table of peers.
    """

    policy: DirectionPolicy
    number: int
    resolver: Resolver | RehearsingResolver
    rows: Rows
    default_digest: bytes
    groups: dict[Signature, _Group] = field(factory=dict)
    classes: dict[int, int] = field(factory=dict)
    selected: int = 0
    users: int = 0

    def signature(self, bit: int) -> Signature:
        """The signature of an identity; empty for everybody else's."""
        mask = 1 << bit
        if not self.selected & mask:
            return ()
        return next(signature for signature, group in self.groups.items() if group.bits & mask)


class LivePolicies:
    """The policies that subjects use, entered in the tables for every known identity.

    :param hash_bits: the width of policy and class numbers.
    """

    def __init__(self, universe: Universe, rules: RuleBook, hash_bits: int) -> None:
        self.tables = Tables()
        #: The layer 7 rules behind the numbers in the verdicts.
        self.l7: dict[int, L7] = {}
        self._universe = universe
        self._rules = rules
        self._live: dict[bytes, _Live] = {}
        self._users_of: dict[str, set[bytes]] = {}
        self._classes: dict[bytes, _Class] = {}
        self._numbers = Numbers(hash_bits)
        self._idle: set[bytes] = set()
        self._values: dict[bytes, VerdictValue] = {}
        self._forgotten = (0, 0)
        self._l7_cleaned = 0
        self._l7_kept = 1024
        self._pending = Pending()

    def __getitem__(self, policy_digest: bytes) -> _Live:
        return self._live[policy_digest]

    def set_subject(self, endpoint: int, entry: SubjectEntry) -> None:
        self._pending.subjects[endpoint] = entry

    def hold(self, *policy_digests: bytes) -> None:
        """Somebody uses these policies, until `release`."""
        for one in policy_digests:
            self._live[one].users += 1

    def release(self, *policy_digests: bytes) -> None:
        for one in policy_digests:
            self._live[one].users -= 1
            self._idle.add(one)

    def publish(self) -> Plan:
        """Drops what nobody uses; the writes since the last time, leaving out what changed back."""
        for policy_digest in self._idle:
            if not self._live[policy_digest].users:
                self._drop_policy(policy_digest)
        self._idle.clear()
        self._numbers.settle()
        pending, self._pending = self._pending, Pending()
        plan = pending.settle(self.tables)
        self._forget_l7()
        return plan

    def _forget_l7(self) -> None:
        if len(self.l7) > 2 * self._l7_kept:
            used = {value.l7 for rows in self.tables.verdicts.values() for value in rows.values()}
            self.l7 = {number: rules for number, rules in self.l7.items() if number in used}
            self._l7_kept = max(1024, len(self.l7))
            self._l7_cleaned += 1

    def entry(self, egress_digest: bytes, ingress_digest: bytes) -> SubjectEntry:
        egress, ingress = self._live[egress_digest], self._live[ingress_digest]
        flags = Flag.COMPUTED
        if egress.policy.enforced:
            flags |= Flag.EGRESS_ENFORCED
        if ingress.policy.enforced:
            flags |= Flag.INGRESS_ENFORCED
        if egress.policy.rehearsed is not None:
            flags |= Flag.EGRESS_AUDITED
        if ingress.policy.rehearsed is not None:
            flags |= Flag.INGRESS_AUDITED
        return SubjectEntry(egress.number, ingress.number, flags)

    # Policies

    def use(self, policy: DirectionPolicy, like: bytes | None = None) -> bytes:
        """Takes a policy into use; returns its digest.

        :param like: one in use that probably says nearly the same, so that only the difference is worked out.
        """
        if policy.digest not in self._live:
            self._add_policy(policy, self._live.get(like) if like else None)
        return policy.digest

    def _add_policy(self, policy: DirectionPolicy, like: _Live | None) -> None:
        for peer in policy.peers:
            self._universe.use(peer)
            self._users_of.setdefault(peer.text, set()).add(policy.digest)
        changed = None if like is None else _changed_peers(like.policy, policy)
        resolver = resolver_of(policy)
        number = self._numbers.take(policy.digest)
        rows = cast("Rows", self._numbered(resolver.default))
        live = _Live(policy, number, resolver, rows, digest(resolver.default))
        self._live[policy.digest] = live
        self._idle.add(policy.digest)
        self._pending.add_class(number, rows)
        if like is None or changed is None:
            self._enter(live, signatures(policy.peers, self._universe))
        else:
            self._derive(live, like, changed)
        self._pending.add_policy(number, live.classes)

    def _enter(self, live: _Live, found: dict[Signature, int]) -> None:
        """Adds identities, by signature, that were in no group of the policy."""
        for signature, bits in found.items():
            old = live.groups.get(signature)
            class_ = self._use_class(live, signature) if old is None else old.class_
            live.groups[signature] = _Group(class_, bits | (old.bits if old else 0))
            live.selected |= bits
            if class_ is not None:
                live.classes.update(dict.fromkeys(self._numbers_of(bits), class_.number))

    def _derive(self, live: _Live, like: _Live, changed: tuple[Peer, ...]) -> None:
        """Takes over the groups of a policy that differs in what it says of some peers only."""
        touched = 0
        for peer in changed:
            touched |= self._universe.bits(peer)
        gone = {peer.text for peer in changed}
        live.classes = dict(like.classes)
        live.selected = like.selected & ~touched
        parts: dict[Signature, int] = {(): touched & ~like.selected}
        for signature, group in like.groups.items():
            moved = group.bits & touched
            if moved:
                left = tuple(text for text in signature if text not in gone)
                parts[left] = parts.get(left, 0) | moved
            if moved != group.bits:
                if group.class_ is not None:
                    group.class_.users += 1
                live.groups[signature] = _Group(group.class_, group.bits & ~moved) if moved else group
        for number in self._numbers_of(touched & like.selected):
            live.classes.pop(number, None)
        known = {peer.text for peer in live.policy.peers}
        for peer in changed:
            if peer.text in known:
                parts = _split(parts, peer.text, self._universe.bits(peer))
        parts.pop((), None)
        self._enter(live, {signature: bits for signature, bits in parts.items() if bits})

    def _numbers_of(self, bits: int) -> Iterable[int]:
        return map(self._universe.number_at, positions(bits))

    def _drop_policy(self, policy_digest: bytes) -> None:
        live = self._live.pop(policy_digest)
        for group in live.groups.values():
            self._release_class(group.class_)
        for peer in live.policy.peers:
            self._universe.release(peer)
            users = self._users_of[peer.text]
            users.discard(policy_digest)
            if not users:
                del self._users_of[peer.text]
        self._pending.drop_policy(live.number)
        self._pending.drop_class(live.number, live.rows)
        self._numbers.release(policy_digest)

    # Identities

    def join(self, identity: int) -> None:
        """Enters a new identity in every policy in use that mentions it."""
        bit = self._universe.bit_of(identity)
        mentioned: dict[bytes, list[str]] = {}
        for text in sorted(self._universe.selectors_of(identity)):
            for policy_digest in self._users_of.get(text, ()):
                mentioned.setdefault(policy_digest, []).append(text)
        for policy_digest, texts in mentioned.items():
            live = self._live[policy_digest]
            self._pending.before_move(live.number, live.classes, identity)
            self._enter(live, {tuple(texts): 1 << bit})

    def leave(self, identity: int, bit: int) -> None:
        """Takes an identity, whose bit it was, out of every policy in use."""
        mask = 1 << bit
        for live in self._live.values():
            if live.selected & mask:
                self._leave(live, identity, mask)

    def _leave(self, live: _Live, identity: int, mask: int) -> None:
        signature = next(name for name, group in live.groups.items() if group.bits & mask)
        group = live.groups[signature]
        live.selected &= ~mask
        self._pending.before_move(live.number, live.classes, identity)
        live.classes.pop(identity, None)
        if group.bits == mask:
            del live.groups[signature]
            self._release_class(group.class_)
        else:
            live.groups[signature] = _Group(group.class_, group.bits & ~mask)

    # Classes

    def _use_class(self, live: _Live, signature: Signature) -> _Class | None:
        """The class of a signature; None where its decisions are those of the default class."""
        difference = live.resolver.difference(signature)
        if not difference.verdicts:
            return None
        base: Rows = live.rows
        if EVERYTHING in difference.verdicts:
            # Little is left of the default: then the whole content stands for the class, so that policies share it that
            # differ in their default deny only.
            name = digest(patched(live.resolver.default, difference.verdicts))
        else:
            name = digest_of(live.default_digest, difference.packed)
        found = self._classes.get(name)
        if found is None:
            rows = self._changed_rows(base, difference)
            found = self._classes[name] = _Class(name, self._numbers.take(name), rows)
            self._pending.add_class(found.number, rows)
        found.users += 1
        return found

    def _release_class(self, found: _Class | None) -> None:
        if found is None:
            return
        found.users -= 1
        if not found.users:
            del self._classes[found.digest]
            self._numbers.release(found.digest)
            self._pending.drop_class(found.number, found.rows)

    def _changed_rows(self, base: Rows, difference: Difference) -> Rows:
        rows: dict[Block, VerdictValue | None] = dict(base)
        for part in difference.parts:
            known = part.values
            if known is None or known[0] != self._epoch():
                known = part.values = (self._epoch(), self._numbered(part.verdicts))
            rows.update(known[1])
        gone = [block for block, verdict in difference.verdicts.items() if verdict is None]
        for block in gone:
            del rows[block]
        return cast("Rows", rows)

    def _epoch(self) -> tuple[int, int]:
        """Rule ids and numbers of layer 7 rules that were given out hold as long as this does."""
        return (self._rules.forgotten, self._l7_cleaned)

    def _numbered(self, verdicts: Mapping[Block, Verdict | None]) -> dict[Block, VerdictValue | None]:
        """The verdicts as they stand in the table."""
        if self._forgotten != self._epoch():
            self._values.clear()
            self._forgotten = self._epoch()
        known, found = self._values, {}
        for block, verdict in verdicts.items():
            value = None
            if verdict is not None:
                value = known.get(verdict.digest)
                if value is None:
                    value = known[verdict.digest] = self._value(verdict)
            found[block] = value
        return found

    def _value(self, verdict: Verdict) -> VerdictValue:
        l7 = 0
        if verdict.l7 is not None:
            l7 = digest32(repr(verdict.l7))
            self.l7[l7] = verdict.l7
        proxy = 0 if verdict.l7 is None else int(_PROXIES.get(verdict.l7.redirect, Proxy.OTHER))
        value = VerdictValue(_action(verdict), int(verdict.auth or 0), proxy, self._rule(verdict.rule), l7)
        would = verdict.would
        if would is None:
            return value
        return value._replace(audit_rule=self._rule(would.rule), audit_action=_action(would))

    def _rule(self, ref: RuleRef) -> int:
        number = self._rules.number(ref)
        if self._rules.row(number) is None:
            self._rules.enter(ref)
        return number


def _changed_peers(old: DirectionPolicy, new: DirectionPolicy) -> tuple[Peer, ...] | None:
    """The peers of whom the policies say different things; None where everybody is concerned."""
    wild = WILDCARD.text
    if (old.open, old.default) != (new.open, new.default) or old.entries.get(wild) != new.entries.get(wild):
        return None
    peers = {peer.text: peer for policy in (old, new) for peer in policy.peers}
    changed = {text: peer for text, peer in peers.items() if old.entries.get(text) != new.entries.get(text)}
    if old.rehearsed is not None and new.rehearsed is not None:
        would = _changed_peers(old.rehearsed, new.rehearsed)
        if would is None:
            return None
        changed |= {peer.text: peer for peer in would}
    elif old.rehearsed is not new.rehearsed:
        return None
    return tuple(changed.values())


def _split(parts: dict[Signature, int], text: str, bits: int) -> dict[Signature, int]:
    """The parts, those of them apart that one more selector selects."""
    found: dict[Signature, int] = {}
    for signature, mask in parts.items():
        inside = mask & bits
        if inside:
            found[tuple(sorted((*signature, text)))] = inside
        if inside != mask:
            found[signature] = mask & ~inside
    return found


def _action(verdict: Verdict) -> Action:
    if verdict.allow:
        return Action.ALLOW if verdict.l7 is None else Action.REDIRECT
    return Action.DENY if verdict.default else Action.DENY_RULE
