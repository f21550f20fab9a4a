"""From what a policy says to decisions: the language's second half.

For each class of peers (identities that the same selectors of a policy select) every block of ports gets one verdict, so
that a longest-prefix lookup finds it. Precedence: a deny that covers the port wins, whatever its specificity. Otherwise
the peer's own entries and the wildcard's each have a candidate, and the stronger redirect wins, then the more specific
port, then the peer's own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
from attrs import define, evolve, field, frozen

from axoneme.plugins.policy.blocks import EVERYTHING, PORT_BITS, Block, covering, specificity
from axoneme.plugins.policy.filters import DirectionPolicy, Entry
from axoneme.plugins.policy.model import L7, WILDCARD, Auth
from axoneme.plugins.policy.rules import RuleRef
from axoneme.plugins.policy.selectors import Universe


@frozen
class Verdict:
    """The decision for one class of peers and one block of ports.

    :param auth: the mode to be met; `DISABLED` only if a rule says so.
    :param rule: the rule that decided.
    :param default: no rule spoke of the traffic.
    """

    allow: bool
    rule: RuleRef
    auth: Auth | None = None
    l7: L7 | None = None
    default: bool = False


#: The verdicts of a class, by block; the block `EVERYTHING` is always there.
Decisions = Mapping[Block, Verdict]


@frozen
class _Candidate:
    """The entry that applies to a port for one identity: `auth` may be inherited from an entry that covers it."""

    block: Block
    l7: L7 | None
    strength: int
    auth: Auth | None
    explicit: bool
    rule: RuleRef


def merge_entries(old: Entry, new: Entry) -> Entry:
    """Merges what different selectors of the same identities, or different ranges, say about the same block."""
    if old.deny != new.deny:
        return old if old.deny else new
    winner, other = sorted((old, new), key=lambda one: (-one.strength, -_rank(one.auth), one.rules[0].key))
    if winner.deny:
        return winner
    return evolve(winner, auth=max(winner.auth, other.auth, key=_rank))


def _rank(auth: Auth | None) -> int:
    return -1 if auth is None else int(auth)


def _table(entries: Iterable[tuple[Block, Entry]]) -> tuple[dict[Block, Entry], dict[Block, Entry]]:
    """Allows and denies apart, merged by block."""
    allows: dict[Block, Entry] = {}
    denies: dict[Block, Entry] = {}
    for block, entry in entries:
        table = denies if entry.deny else allows
        old = table.get(block)
        table[block] = entry if old is None else merge_entries(old, entry)
    return allows, denies


def _candidate(allows: Mapping[Block, Entry], path: list[Block]) -> _Candidate | None:
    """Walks from the broadest block to the port: what covers hands down its mode, and a stronger redirect."""
    found: _Candidate | None = None
    for block in path:
        entry = allows.get(block)
        if entry is None:
            continue
        explicit = entry.auth is not None
        if found is None or entry.strength >= found.strength:
            auth = entry.auth if explicit or found is None else found.auth
            found = _Candidate(block, entry.l7, entry.strength, auth, explicit, entry.rules[0])
        elif explicit:
            found = evolve(found, block=block, auth=entry.auth, explicit=True)
    return found


def _choose(own: _Candidate | None, wild: _Candidate | None) -> _Candidate | None:
    if own is None or wild is None:
        return own or wild
    if own.strength != wild.strength:
        return own if own.strength > wild.strength else wild
    chosen, other = (own, wild) if specificity(own.block) >= specificity(wild.block) else (wild, own)
    if not chosen.explicit and _rank(other.auth) > _rank(chosen.auth):
        chosen = evolve(chosen, auth=other.auth)
    return chosen


def _shown(candidate: _Candidate) -> Auth | None:
    """An inherited `disabled` is no mode at all."""
    return None if candidate.auth is Auth.DISABLED and not candidate.explicit else candidate.auth


@define
class Resolver:
    """Resolves the classes of one policy; what only depends on the wildcard is prepared once."""

    policy: DirectionPolicy
    _wild: tuple[dict[Block, Entry], dict[Block, Entry]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._wild = _table(self.policy.entries.get(WILDCARD.text, ()))

    def decisions(self, texts: Iterable[str]) -> Decisions:
        """The decisions for identities that exactly these selectors select."""
        own = _table(entry for text in texts for entry in self.policy.entries[text])
        blocks = {EVERYTHING, *own[0], *own[1], *self._wild[0], *self._wild[1]}
        decided: dict[Block, Verdict] = {}
        for block in sorted(blocks, key=specificity):
            path = list(covering(block))
            verdict = self._verdict(own, path)
            broader = next((decided[one] for one in reversed(path[:-1]) if one in decided), None)
            if verdict != broader:
                decided[block] = verdict
        return decided

    def _verdict(self, own: tuple[dict[Block, Entry], dict[Block, Entry]], path: list[Block]) -> Verdict:
        for block in reversed(path):
            for denies in (own[1], self._wild[1]):
                if block in denies:
                    return Verdict(False, denies[block].rules[0])
        chosen = _choose(_candidate(own[0], path), _candidate(self._wild[0], path))
        if chosen is None:
            return Verdict(self.policy.open, self.policy.default, default=True)
        return Verdict(True, chosen.rule, _shown(chosen), chosen.l7)


def signatures(policy: DirectionPolicy, universe: Universe) -> dict[tuple[str, ...], list[int]]:
    """The known identities that some selector of the policy selects, grouped by which ones do."""
    if not policy.peers or not universe.width:
        return {}
    size = (universe.width + 7) // 8
    rows = b"".join(universe.bits(peer).to_bytes(size, "little") for peer in policy.peers)
    matrix = np.frombuffer(rows, dtype=np.uint8).reshape(len(policy.peers), size)
    members = np.unpackbits(matrix, axis=1, bitorder="little")
    packed = np.ascontiguousarray(np.packbits(members, axis=0).T)
    distinct, group = np.unique(
        packed.view(np.dtype((np.void, packed.shape[1]))).ravel(), return_inverse=True
    )
    result: dict[tuple[str, ...], list[int]] = {}
    order = np.argsort(group, kind="stable")
    bounds = np.searchsorted(group[order], np.arange(len(distinct) + 1))
    for index in range(len(distinct)):
        chunk = order[bounds[index] : bounds[index + 1]]
        selecting = np.flatnonzero(members[:, chunk[0]])
        if len(selecting):
            texts = tuple(policy.peers[peer].text for peer in selecting)
            result[texts] = [universe.number_at(int(bit)) for bit in chunk]
    return result


def digest(decisions: Decisions) -> bytes:
    """16 bytes that stand for the decisions of a class."""
    content = [
        (block, verdict.allow, verdict.default, verdict.rule.key, _rank(verdict.auth), repr(verdict.l7))
        for block, verdict in sorted(decisions.items())
    ]
    return hashlib.blake2b(repr(content).encode(), digest_size=16, person=b"class").digest()


def decide(decisions: Decisions, protocol: int, port: int) -> Verdict:
    """The verdict of the longest block that holds the port."""
    path = list(covering((protocol, PORT_BITS, port)))
    return next(decisions[block] for block in reversed(path) if block in decisions)
