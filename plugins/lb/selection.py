"""Which backends of a service get new connections, and why the others don't.

The rules are Kubernetes': ready ones, or, where there is none, those that terminate but still serve (KEP-1669); local ones
only, where a policy says so; those whose hints name this zone or node, if every ready one has hints (KEP-2433, KEP-3015).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import NamedTuple

from attrs import define, frozen

from axoneme.plugins.lb.model import Address, Distribution, Endpoint, Protocol
from axoneme.plugins.lb.tables import BackendState


class Why(enum.StrEnum):
    """Why a backend gets no new connections. USED: it does."""

    USED = "used"
    UNREADY = "not ready"
    TERMINATING = "terminating, others are ready"
    GONE = "terminating, does not serve any more"
    REMOTE = "on another node; the traffic policy is Local"
    ZONE = "meant for other zones"
    NODE = "meant for other nodes"
    DRAINED = "its weight is 0"


@define(eq=False)
class Candidate:
    """A backend of one port of one service.

    :param key: as in `rows.backend_key`.
    :param local: on this node.
    """

    key: bytes
    address: Address
    port: int
    protocol: Protocol
    endpoint: Endpoint
    weight: int = 1
    local: bool = False

    @property
    def state(self) -> BackendState:
        endpoint = self.endpoint
        if endpoint.terminating:
            return BackendState.TERMINATING
        if not endpoint.ready:
            return BackendState.UNREADY
        return BackendState.ACTIVE if self.weight else BackendState.DRAINED


@frozen
class Rule:
    """What decides besides the backends' own state."""

    local_only: bool = False
    publish_not_ready: bool = False
    distribution: Distribution = Distribution.NONE
    zone: str = ""
    node: str = ""


class Judged(NamedTuple):
    """All candidates, and what became of each."""

    candidates: tuple[Candidate, ...]
    reasons: tuple[Why, ...] = ()

    @property
    def used(self) -> list[Candidate]:
        return [one for one, why in zip(self.candidates, self.reasons, strict=True) if why is Why.USED]


def is_plain(one: Candidate) -> bool:
    """Nothing speaks against it and no hint says anything about it."""
    endpoint = one.endpoint
    return bool(
        endpoint.ready
        and one.weight
        and not endpoint.terminating
        and not endpoint.zones
        and not endpoint.nodes
    )


def wanted(one: Candidate, rule: Rule) -> bool:
    """It gets new connections, whoever else there is."""
    return _own(one, rule) is Why.USED


def judge(candidates: Sequence[Candidate], rule: Rule) -> Judged:
    """What becomes of each candidate, all of one port and family."""
    reasons = [_own(one, rule) for one in candidates]
    if Why.USED not in reasons:
        # Everybody is going: whoever still serves has to.
        reasons = [Why.USED if why is Why.TERMINATING else why for why in reasons]
    elif not rule.local_only:
        _apply_hints(candidates, reasons, rule)
    return Judged(tuple(candidates), tuple(reasons))


def _own(one: Candidate, rule: Rule) -> Why:
    endpoint = one.endpoint
    if not one.weight:
        return Why.DRAINED
    if rule.local_only and not one.local:
        return Why.REMOTE
    if endpoint.terminating and not rule.publish_not_ready:
        return Why.TERMINATING if endpoint.serving else Why.GONE
    if not endpoint.ready and not rule.publish_not_ready:
        return Why.UNREADY
    return Why.USED


def _apply_hints(candidates: Sequence[Candidate], reasons: list[Why], rule: Rule) -> None:
    """Keeps those that are meant for this node or zone, if there is one. Where nobody wrote hints, and the service asks for
    nearness, they follow from where the backends are."""
    used = [at for at, why in enumerate(reasons) if why is Why.USED]
    endpoints = [candidates[at].endpoint for at in used]
    if any(endpoint.zones or endpoint.nodes for endpoint in endpoints):
        nodes = rule.node and all(endpoint.nodes for endpoint in endpoints)
        zones = rule.zone and all(endpoint.zones for endpoint in endpoints)
        near = [at for at in used if nodes and rule.node in candidates[at].endpoint.nodes]
        close = [at for at in used if zones and rule.zone in candidates[at].endpoint.zones]
    else:
        near, close = _derived(candidates, used, rule)
    if near or close:
        kept = set(near or close)
        for at in used:
            if at not in kept:
                reasons[at] = Why.NODE if near else Why.ZONE


def _derived(candidates: Sequence[Candidate], used: list[int], rule: Rule) -> tuple[list[int], list[int]]:
    if rule.distribution is Distribution.NONE:
        return [], []
    close = [at for at in used if rule.zone and candidates[at].endpoint.zone == rule.zone]
    if rule.distribution is not Distribution.PREFER_SAME_NODE:
        return [], close
    return [at for at in used if candidates[at].local], close
