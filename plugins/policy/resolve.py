"""From what a policy says to decisions: the language's second half.

For each class of peers (identities that the same selectors of a policy select) every block of ports gets one verdict, so
that a longest-prefix lookup finds it. Precedence: a deny that covers the port wins, whatever its specificity. Otherwise
the peer's own entries and the wildcard's each have a candidate, and the stronger redirect wins, then the more specific
port, then the peer's own.

Blocks are walked from the broad to the narrow ones inside them, and each takes over from the one around it what is known
so far (`_State`). What the wildcard's entries alone come to is worked out once for a policy; a class only adds the blocks
of its own entries, and those of the wildcard's that lie inside them.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

from attrs import define, evolve, field

from axoneme.plugins.policy.blocks import EVERYTHING, PORT_BITS, Block, covering, covers, span, specificity
from axoneme.plugins.policy.filters import DirectionPolicy
from axoneme.plugins.policy.model import WILDCARD, Auth
from axoneme.plugins.policy.statements import Entry, Verdict, packed

T = TypeVar("T")

#: The verdicts of a class, by block; the block `EVERYTHING` is always there.
Decisions = Mapping[Block, Verdict]

#: What stands at a block: the merged allow, and the merged deny.
_Layer = dict[Block, Entry]


class _Candidate(NamedTuple):
    """The entry that applies to a port for one identity.

    :ivar source: the entry; a redirect may be that of an entry around it, and so may be the mode.
    """

    specificity: int
    source: Entry
    strength: int
    auth: Auth | None
    explicit: bool


class _State(NamedTuple):
    """What is known at a block: the candidates, the nearest deny, and the verdict that follows."""

    own: _Candidate | None
    wild: _Candidate | None
    deny: Entry | None
    verdict: Verdict


def merge_entries(old: Entry, new: Entry) -> Entry:
    """Merges what different selectors of the same identities, or different ranges, say about the same block."""
    winner, other = sorted((old, new), key=lambda one: (-one.strength, -_rank(one.auth), one.rules[0].key))
    if winner.deny or _rank(winner.auth) >= _rank(other.auth):
        return winner
    return evolve(winner, auth=other.auth)


def _rank(auth: Auth | None) -> int:
    return -1 if auth is None else int(auth)


def _layers(rows: Iterable[tuple[Block, Entry]]) -> tuple[_Layer, _Layer]:
    """Allows and denies apart, merged by block."""
    allows: _Layer = {}
    denies: _Layer = {}
    for block, entry in rows:
        layer = denies if entry.deny else allows
        old = layer.get(block)
        layer[block] = entry if old is None else merge_entries(old, entry)
    return allows, denies


def _step(found: _Candidate | None, entry: Entry, block: Block) -> _Candidate:
    """One block further inside: what covers it hands down its mode, and a stronger redirect."""
    explicit, strength = entry.auth is not None, entry.strength
    if found is None:
        return _Candidate(specificity(block), entry, strength, entry.auth, explicit)
    if strength >= found.strength:
        return _Candidate(
            specificity(block), entry, strength, entry.auth if explicit else found.auth, explicit
        )
    if explicit:
        return _Candidate(specificity(block), found.source, found.strength, entry.auth, True)
    return found


def _choose(own: _Candidate | None, wild: _Candidate | None) -> _Candidate:
    """Of two candidates, at least one of which is there."""
    if own is None or wild is None:
        found = own or wild
        assert found is not None, "no entry, no choice"
        return found
    if own.strength != wild.strength:
        return own if own.strength > wild.strength else wild
    chosen, other = (own, wild) if own.specificity >= wild.specificity else (wild, own)
    if not chosen.explicit and _rank(other.auth) > _rank(chosen.auth):
        chosen = chosen._replace(auth=other.auth)
    return chosen


def _allowed(chosen: _Candidate) -> Verdict:
    """An inherited `disabled` is no mode at all."""
    auth = None if chosen.auth is Auth.DISABLED and not chosen.explicit else chosen.auth
    source = chosen.source
    if auth is source.auth:
        return source.verdict
    return Verdict(True, source.rules[0], auth, source.l7)


def inside_order(block: Block) -> tuple[int, int, int]:
    """What sorts a block right before the blocks inside it."""
    protocol, bits, port = block
    return (protocol, port, bits)


@define(eq=False)
class Difference:
    """In what decisions differ from a policy's default ones.

    :ivar verdicts: new verdicts by block, None where one goes.
    :ivar spans: first and last of the ports, of all protocols in a row, that rules speak of; see `blocks.span`.
    :ivar packed: each of the changes as bytes.
    :ivar parts: what it is the sum of; itself, if of nothing else.
    :ivar values: what whoever numbers verdicts made of them, to be found again; a part is in many sums.
    """

    verdicts: dict[Block, Verdict | None]
    spans: list[tuple[int, int]]
    packed: list[bytes]
    parts: Sequence[Difference] = ()
    values: Any = None

    def __attrs_post_init__(self) -> None:
        self.parts = self.parts or (self,)


def _sum(parts: Sequence[Difference]) -> Difference:
    verdicts: dict[Block, Verdict | None] = {}
    rows: list[bytes] = []
    for part in parts:
        verdicts.update(part.verdicts)
        rows += part.packed
    return Difference(verdicts, [], rows, parts)


@define
class Resolver:
    """Resolves the classes of one policy; what only depends on the wildcard is prepared once."""

    policy: DirectionPolicy
    #: The decisions for whom no selector of the policy selects.
    default: Decisions = field(init=False)
    _allows: _Layer = field(init=False)
    _denies: _Layer = field(init=False)
    _order: list[tuple[int, int, int]] = field(init=False)
    _blocks: list[Block] = field(init=False)
    _states: list[_State] = field(init=False)
    _around: list[int] = field(init=False)
    _nothing: _State = field(init=False)
    _parts: dict[str, Difference] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self._allows, self._denies = _layers(self.policy.entries.get(WILDCARD.text, ()))
        self._blocks = sorted({EVERYTHING, *self._allows, *self._denies}, key=inside_order)
        self._order = [inside_order(block) for block in self._blocks]
        self._states, self._around = [], []
        nothing = _State(None, None, None, Verdict(self.policy.open, self.policy.default, default=True))
        decided: dict[Block, Verdict] = {}
        for index, block in enumerate(self._blocks):
            around = index - 1
            while around >= 0 and not covers(self._blocks[around], block):
                around = self._around[around]
            outer = self._states[around] if around >= 0 else nothing
            state = self._state(outer, block, {}, {})
            if around < 0 or state.verdict != outer.verdict:
                decided[block] = state.verdict
            self._states.append(state)
            self._around.append(around)
        self._nothing = nothing
        self.default = decided

    def decisions(self, texts: Iterable[str]) -> Decisions:
        """The decisions for identities that exactly these selectors select."""
        return patched(self.default, self.difference(texts).verdicts)

    def difference(self, texts: Iterable[str]) -> Difference:
        """In what the decisions for these selectors' identities differ from the default ones.

        What each selector alone comes to is remembered. Where no block of one selector lies inside another one's, they
        have nothing to say to each other, and the sum is all there is to it.
        """
        parts = [self._part(text) for text in texts if text in self.policy.entries]
        if len(parts) == 1:
            return parts[0]
        spans = sorted([span for part in parts for span in part.spans])
        if all(one[1] < two[0] for one, two in pairwise(spans)):
            return _sum(parts)
        return self._resolve([row for text in texts for row in self.policy.entries.get(text, ())])

    def _part(self, text: str) -> Difference:
        part = self._parts.get(text)
        if part is None:
            part = self._parts[text] = self._resolve(self.policy.entries[text])
        return part

    def _resolve(self, rows: Sequence[tuple[Block, Entry]]) -> Difference:
        if len(rows) == 1 and len(self._inside(rows[0][0])) == 0:
            return self._resolve_one(*rows[0])
        allows, denies = _layers(rows)
        default = self.default
        found: dict[Block, Verdict | None] = {}
        spans = []
        nesting: list[tuple[Block, _State]] = []
        for block in self._touched({*allows, *denies}):
            while nesting and not covers(nesting[-1][0], block):
                nesting.pop()
            if nesting:
                outer = nesting[-1][1]
            else:
                outer = self._outside(block)
                spans.append(span(block))
            state = self._state(outer, block, allows, denies)
            verdict: Verdict | None = state.verdict
            if block[0] and (verdict is outer.verdict or state.verdict.digest == outer.verdict.digest):
                verdict = None  # what is around it says the same
            old = default.get(block)
            if verdict is not old and (verdict is None or old is None or verdict.digest != old.digest):
                found[block] = verdict
            nesting.append((block, state))
        return Difference(found, spans, [packed_row(block, verdict) for block, verdict in found.items()])

    def _resolve_one(self, block: Block, entry: Entry) -> Difference:
        """The usual case: one entry, and nothing of the wildcard's inside its block."""
        outer = self._outside(block)
        if outer.deny is not None:
            verdict = outer.verdict
        elif entry.deny:
            verdict = entry.verdict
        else:
            verdict = _allowed(_choose(_step(None, entry, block), outer.wild))
        if verdict is outer.verdict or verdict.digest == outer.verdict.digest:
            return Difference({}, [span(block)], [])
        return Difference({block: verdict}, [span(block)], [packed_row(block, verdict)])

    def _touched(self, own: set[Block]) -> list[Block]:
        """The blocks whose verdict an entry of these blocks has a say in, each before those inside it."""
        if len(self._blocks) > 1:
            for block in tuple(own):
                own.update(self._inside(block))
        return sorted(own, key=inside_order) if len(own) > 1 else list(own)

    def _inside(self, block: Block) -> list[Block]:
        """The wildcard's blocks inside this one."""
        protocol, bits, port = block
        if not protocol:
            return self._blocks
        first = bisect_left(self._order, (protocol, port, bits))
        last = bisect_left(self._order, (protocol, port + (1 << PORT_BITS - bits), -1))
        return self._blocks[first:last]

    def _outside(self, block: Block) -> _State:
        """What the wildcard's entries come to right around a block."""
        if block == EVERYTHING:
            return self._nothing
        at = bisect_left(self._order, inside_order(block)) - 1
        while not covers(self._blocks[at], block):
            at = self._around[at]
        return self._states[at]

    def _state(self, outer: _State, block: Block, allows: _Layer, denies: _Layer) -> _State:
        deny = denies.get(block) or self._denies.get(block) or outer.deny
        allow, anybody = allows.get(block), self._allows.get(block)
        own = outer.own if allow is None else _step(outer.own, allow, block)
        wild = outer.wild if anybody is None else _step(outer.wild, anybody, block)
        if deny is not None:
            verdict = deny.verdict
        elif own is outer.own and wild is outer.wild:
            verdict = outer.verdict
        else:
            verdict = _allowed(_choose(own, wild))
        return _State(own, wild, deny, verdict)


def patched(decisions: Mapping[Block, T], changes: Mapping[Block, T | None]) -> Mapping[Block, T]:
    found = dict(decisions)
    for block, new in changes.items():
        if new is None:
            del found[block]
        else:
            found[block] = new
    return found


def digest(decisions: Decisions) -> bytes:
    """16 bytes that stand for the decisions of a class."""
    return digest_of(b"", [packed_row(block, verdict) for block, verdict in decisions.items()])


def digest_of(base: bytes, rows: list[bytes]) -> bytes:
    """16 bytes that stand for decisions: those with the digest `base`, changed like this."""
    return hashlib.blake2b(base + b"".join(sorted(rows)), digest_size=16, person=b"class").digest()


def packed_row(block: Block, verdict: Verdict | None) -> bytes:
    return packed(block) + (verdict.digest if verdict else b"")


def decide(decisions: Decisions, protocol: int, port: int) -> Verdict:
    """The verdict of the longest block that holds the port."""
    path = list(covering((protocol, PORT_BITS, port)))
    return next(decisions[block] for block in reversed(path) if block in decisions)
