"""Verdicts as they are compared and shown: over all ports at once, as few ranges as say it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from attrs import evolve, frozen

from axoneme.plugins.policy.blocks import Block, specificity
from axoneme.plugins.policy.model import Protocol
from axoneme.plugins.policy.resolve import Decisions, decide
from axoneme.plugins.policy.rules import RuleRef
from axoneme.plugins.policy.statements import Verdict

_LAST_PORT = 65535
#: A protocol that no rule can name: it stands for all that no rule of a pair speaks of.
OTHER = 255


@frozen
class Outcome:
    """What becomes of a flow, both sides together.

    :param needs: what it still has to pass: authentication, a proxy; and that it passes only because of a rehearsal.
    :param rules: those that decided: the one that denied (or would, if it were enforced), or those that allowed, egress first.
    """

    allow: bool
    needs: tuple[str, ...] = ()
    rules: tuple[RuleRef, ...] = ()

    @property
    def text(self) -> str:
        return ", ".join(["allow" if self.allow else "deny", *self.needs])

    def differs(self, other: Outcome) -> bool:
        """Whether traffic would notice: which rule decides does not count."""
        return (self.allow, self.needs) != (other.allow, other.needs)


#: Where no policy of this node applies.
UNTOLD = Outcome(True)


def outcome(*sides: Verdict | None) -> Outcome:
    """The sides of a flow together, egress first; None for an end that has no policy here."""
    told = [side for side in sides if side is not None]
    for side in told:
        if not side.allow:
            return Outcome(False, (), (side.rule,))
    needs = [
        f"authentication {side.auth.text}" for side in told if side.auth and side.auth.text != "disabled"
    ]
    needs += [f"{side.l7.redirect} proxy" for side in told if side.l7]
    would = [side.would.rule for side in told if side.would is not None]
    if would:
        needs.append("audit denies")
    return Outcome(True, tuple(dict.fromkeys(needs)), tuple(would) or tuple(side.rule for side in told))


@frozen(order=True)
class Ports:
    """A range of ports, or of ICMP types, of one protocol; protocol 0 is every protocol, `OTHER` all `but` some."""

    protocol: int
    first: int = 0
    last: int = _LAST_PORT
    but: tuple[int, ...] = ()

    @property
    def text(self) -> str:
        if self.protocol in (0, OTHER):
            names = ", ".join(Protocol(one).name for one in self.but)
            return f"any but {names}" if names else "any"
        name = Protocol(self.protocol).name
        if (self.first, self.last) == (0, _LAST_PORT):
            return f"all/{name}"
        span = str(self.first) if self.first == self.last else f"{self.first}-{self.last}"
        return f"{span}/{name}"


@frozen
class Change:
    """Ports of a pair whose outcome changes."""

    ports: Ports
    before: Outcome
    after: Outcome


#: Decisions of egress and ingress; None for an end that has no policy here.
Sides = tuple[Decisions | None, Decisions | None]


def changes(before: Sides, after: Sides) -> tuple[Change, ...]:
    """Where the outcomes of a pair differ, in the order of protocols and ports."""
    found: dict[int, list[Change]] = {}
    every = [decisions for decisions in (*before, *after) if decisions is not None]
    for protocol, starts in _starts(every).items():
        found[protocol] = list(_merged(_changes(protocol, starts, before, after)))
    return _collapsed(found)


def _starts(every: Iterable[Mapping[Block, Verdict]]) -> dict[int, list[int]]:
    """By protocol the ports at which something may be decided anew; everything else is the same in between."""
    found: dict[int, set[int]] = {OTHER: {0}}
    for decisions in every:
        for block in decisions:
            if specificity(block):
                protocol, bits, port = block
                found.setdefault(protocol, {0}).update((port, port + (1 << 16 - bits)))
    return {
        protocol: sorted(one for one in starts if one <= _LAST_PORT)
        for protocol, starts in sorted(found.items())
    }


def _changes(protocol: int, starts: list[int], before: Sides, after: Sides) -> Iterator[Change]:
    for first, following in zip(starts, [*starts[1:], _LAST_PORT + 1], strict=True):
        old, new = (outcome(*(_decided(one, protocol, first) for one in sides)) for sides in (before, after))
        if old.differs(new):
            yield Change(Ports(protocol, first, following - 1), old, new)


def _decided(decisions: Decisions | None, protocol: int, port: int) -> Verdict | None:
    return None if decisions is None else decide(decisions, protocol, port)


def _merged(found: Iterator[Change]) -> Iterator[Change]:
    last: Change | None = None
    for one in found:
        if (
            last
            and last.ports.last + 1 == one.ports.first
            and (last.before, last.after) == (one.before, one.after)
        ):
            last = Change(Ports(one.ports.protocol, last.ports.first, one.ports.last), one.before, one.after)
            continue
        if last:
            yield last
        last = one
    if last:
        yield last


def _collapsed(found: dict[int, list[Change]]) -> tuple[Change, ...]:
    """One change of any protocol, where they all change alike."""
    rest = found[OTHER]
    whole = [len(one) == 1 and one[0].ports.last - one[0].ports.first == _LAST_PORT for one in found.values()]
    if rest and all(whole) and len({(one[0].before, one[0].after) for one in found.values()}) == 1:
        return (Change(Ports(0), rest[0].before, rest[0].after),)
    but = tuple(protocol for protocol in found if protocol != OTHER)
    found[OTHER] = [evolve(one, ports=evolve(one.ports, but=but)) for one in rest]
    return tuple(one for protocol in sorted(found) for one in found[protocol])
