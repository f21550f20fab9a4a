"""Which policy is behind a rule's number, as flows tell it."""

from __future__ import annotations

import json
from typing import Final, Protocol

from axoneme.core.events.rules import Rule
from axoneme.plugins.hubble.proto.flow_pb2 import Policy

_DERIVED: Final = "k8s:io.cilium.k8s.policy."
#: Rules that are gone from the table and may still be in the ring.
_REMEMBERED: Final = 16_384

#: `policy_match_type`: what a rule speaks of decides how specific its match was.
_NONE, _L3, _L3_L4, _L4, _ALL = range(5)
_PEERS: Final = ("Endpoints", "CIDR", "CIDRSet", "Entities", "Nodes", "FQDNs", "Services", "Groups")
_PORTS: Final = ("toPorts", "ports", "icmps")


class Rules(Protocol):
    """Where rules are found by number: the table, or what a store says of the past."""

    @property
    def revision(self) -> int: ...

    def get(self, key: int) -> Rule | None: ...


class Policies:
    """Follows the table `rules`.

    What was once found stays known for a while, so that an old flow keeps its names when the policy goes.
    """

    def __init__(self, table: Rules) -> None:
        self._table = table
        self._known: dict[int, tuple[Policy, int]] = {}
        self._revision = -1

    @property
    def revision(self) -> int:
        """Changes when an answer may have changed."""
        return self._table.revision

    def get(self, rule: int) -> tuple[Policy, int] | None:
        """The policy, and the `policy_match_type` of what it allows; None for a rule that nobody knows (any more)."""
        row = self._table.get(rule)
        if row is None:
            return self._known.get(rule)
        if len(self._known) > _REMEMBERED:
            self._known = {n: known for n, known in self._known.items() if self._table.get(n) is not None}
        self._known[rule] = found = (_policy(row), _match(row))
        return found


def _policy(rule: Rule) -> Policy:
    """Labels are those that Cilium gives to the rules of a policy, from which it makes the names."""
    if not rule.name:
        return Policy(name=rule.effect, kind=rule.kind)
    derived = {"derived-from": rule.kind, "name": rule.name, "namespace": rule.namespace}
    labels = [f"{_DERIVED}{key}={value}" for key, value in sorted(derived.items()) if value]
    return Policy(name=rule.name, namespace=rule.namespace, kind=rule.kind, labels=labels)


def _match(rule: Rule) -> int:
    """No written rule (index -1) is no match. `rule.text` is the rule as JSON."""
    if rule.index < 0:
        return _NONE
    try:
        written = json.loads(rule.text)
    except ValueError:
        return _ALL
    if not isinstance(written, dict):
        return _ALL
    peers = any(key.startswith(("from", "to")) and key.endswith(_PEERS) for key in written) or any(
        key in ("from", "to") for key in written
    )
    ports = any(written.get(key) for key in _PORTS)
    return {(True, True): _L3_L4, (True, False): _L3, (False, True): _L4, (False, False): _ALL}[peers, ports]
