"""The kernel's side of the decision tables: three maps, declared once, and the codec between them and `Tables`.

A decision is three lookups. `policy_subjects` gives the local endpoint's policy for the direction; `policy_peers` the class
of the peer's identity in it (none: the policy's number itself, its default class); `policy_verdicts` the decision, by the
longest prefix of (class, protocol, port). Every class has a row for its bare 32 bits, so the last lookup always finds one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import chain, repeat
from typing import Any

import numpy as np
from attrs import define

from axoneme.core.datapath.layout import Struct, array, be16, u8, u16, u32
from axoneme.core.datapath.maps import Map, MapKind, MapSpec
from axoneme.plugins.policy.blocks import PORT_BITS, Block
from axoneme.plugins.policy.tables import (
    Action,
    Flag,
    Plan,
    Rows,
    SubjectEntry,
    Tables,
    VerdictValue,
)

MAX_ENDPOINTS = 65_536

#: Bits of a verdict's key: the class alone (any protocol), with the protocol, and with the whole port.
CLASS_BITS, PROTOCOL_BITS, FULL_BITS = 32, 48, 64

SUBJECT = Struct(
    "policy_subject",
    {"egress": u32, "ingress": u32, "flags": u32, "pad": u32},
    doc="policies of a local endpoint, by direction, and what holds of them",
)
PEER = Struct("policy_peer", {"policy": u32, "identity": u32})
PORT = Struct(
    "policy_port",
    {"prefixlen": u32, "class": u32, "zero": u8, "protocol": u8, "port": be16},
    doc="for ICMP the port is the type; prefix lengths count from the class on",
)
VERDICT = Struct(
    "policy_verdict",
    {
        "action": u8,
        "auth": u8,
        "proxy_port": u16,
        "rule": u32,
        "l7": u32,
        "audit_rule": u32,
        "audit_action": u8,
        "pad": array(u8, 3),
    },
    doc="action and authentication mode as numbered in tables.Action and model.Auth; the denial that is rehearsed",
)


def specs(peers: int, verdicts: int) -> tuple[MapSpec, ...]:
    """The declarations, with room for that many entries."""
    return (
        MapSpec(
            "policy_subjects", MapKind.ARRAY, u32, SUBJECT, MAX_ENDPOINTS, doc="policies of local endpoints"
        ),
        MapSpec("policy_peers", MapKind.HASH, PEER, u32, peers, doc="classes of identities"),
        MapSpec("policy_verdicts", MapKind.LPM_TRIE, PORT, VERDICT, verdicts, doc="decisions of classes"),
    )


#: The fields of a verdict, in the order of `VerdictValue`.
_FIELDS = ("action", "auth", "proxy_port", "rule", "l7", "audit_rule", "audit_action")


@define
class PolicyMaps:
    """The three open maps."""

    subjects: Map
    peers: Map
    verdicts: Map

    def read(self) -> Tables:
        """What the kernel has now."""
        return Tables(self._read_subjects(), self._read_peers(), self._read_verdicts())

    def _read_subjects(self) -> dict[int, SubjectEntry]:
        keys, values = self.subjects.items()
        used = np.flatnonzero(values["flags"])
        return {
            int(keys[at]): SubjectEntry(
                int(values["egress"][at]), int(values["ingress"][at]), Flag(int(values["flags"][at]))
            )
            for at in used
        }

    def _read_peers(self) -> dict[int, dict[int, int]]:
        keys, values = self.peers.items()
        found: dict[int, dict[int, int]] = {}
        for policy, identity, class_ in zip(
            keys["policy"].tolist(), keys["identity"].tolist(), values.tolist(), strict=True
        ):
            found.setdefault(policy, {})[identity] = class_
        return found

    def _read_verdicts(self) -> dict[int, Rows]:
        keys, values = self.verdicts.items()
        names = ("class", "protocol", "prefixlen", "port")
        columns = zip(*(keys[name].tolist() for name in names), strict=True)
        rows = zip(*(values[name].tolist() for name in _FIELDS), strict=True)
        found: dict[int, dict[Block, VerdictValue]] = {}
        for (class_, protocol, prefix, port), (action, *rest, audit) in zip(columns, rows, strict=True):
            block = (protocol, max(0, prefix - PROTOCOL_BITS), port)
            value = VerdictValue(Action(action), *rest)
            if audit:
                value = value._replace(audit_action=Action(audit))
            found.setdefault(class_, {})[block] = value
        return dict(found)

    def add_verdicts(self, classes: Mapping[int, Rows]) -> None:
        if classes:
            rows = [value for rows in classes.values() for value in rows.values()]
            self.verdicts.update_batch(_verdict_keys(classes), _verdict_values(rows))

    def set_peers(self, policies: Mapping[int, Mapping[int, int]]) -> None:
        if policies:
            keys = _peer_keys(policies)
            classes = chain.from_iterable(rows.values() for rows in policies.values())
            self.peers.update_batch(keys, np.fromiter(classes, np.uint32, len(keys)))

    def set_subjects(self, rows: Mapping[int, SubjectEntry]) -> None:
        if not rows:
            return
        values = np.zeros(len(rows), SUBJECT.dtype)
        values["egress"] = [row.egress for row in rows.values()]
        values["ingress"] = [row.ingress for row in rows.values()]
        values["flags"] = [int(row.flags) for row in rows.values()]
        self.subjects.update_batch(np.fromiter(rows, np.uint32, len(rows)), values)

    def remove(self, plan: Plan) -> None:
        """The plan's last steps."""
        if plan.remove_peers:
            self.peers.delete_batch(_peer_keys(plan.remove_peers))
        if plan.remove_verdicts:
            self.verdicts.delete_batch(_verdict_keys(plan.remove_verdicts))


def _verdict_keys(classes: Mapping[int, Collection[Block]]) -> np.ndarray[Any, Any]:
    blocks = np.array([block for rows in classes.values() for block in rows], np.uint32).reshape(-1, 3)
    protocol, bits, port = blocks.T
    table = np.zeros(len(blocks), PORT.dtype)
    table["prefixlen"] = np.where(protocol, PROTOCOL_BITS + bits, CLASS_BITS)
    table["class"] = _repeated(classes, len(blocks))
    table["protocol"] = protocol
    table["port"] = port
    return table


def _verdict_values(values: Collection[VerdictValue]) -> np.ndarray[Any, Any]:
    table = np.zeros(len(values), VERDICT.dtype)
    columns = np.array(values, np.uint32).reshape(-1, len(_FIELDS)).T
    for name, column in zip(_FIELDS, columns, strict=True):
        table[name] = column
    return table


def _peer_keys(policies: Mapping[int, Collection[int]]) -> np.ndarray[Any, Any]:
    table = np.zeros(sum(map(len, policies.values())), PEER.dtype)
    table["policy"] = _repeated(policies, len(table))
    table["identity"] = np.fromiter(chain.from_iterable(policies.values()), np.uint32, len(table))
    return table


def _repeated(groups: Mapping[int, Collection[Any]], total: int) -> np.ndarray[Any, Any]:
    """Each key as often as its group has members."""
    keys = chain.from_iterable(repeat(key, len(members)) for key, members in groups.items())
    return np.fromiter(keys, np.uint32, total)


assert FULL_BITS == PROTOCOL_BITS + PORT_BITS
assert PORT.size * 8 == FULL_BITS + 32, "the prefix length counts every bit behind itself"
