"""The kernel's side of the decision tables: three maps, declared once, and the codec between them and `Tables`.

A decision is three lookups. `policy_subjects` gives the local endpoint's policy for the direction; `policy_peers` the class
of the peer's identity in it (none: the policy's number itself, its default class); `policy_verdicts` the decision, by the
longest prefix of (class, protocol, port). Every class has a row for its bare 32 bits, so the last lookup always finds one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from attrs import define

from axoneme.core.datapath.layout import Struct, be16, u8, u16, u32
from axoneme.core.datapath.maps import Map, MapKind, MapSpec
from axoneme.plugins.policy.tables import (
    FULL_BITS,
    NO_SUBJECT,
    Action,
    Flag,
    PeerKey,
    Plan,
    SubjectEntry,
    Tables,
    VerdictKey,
    VerdictValue,
)

MAX_ENDPOINTS = 65_536

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
    {"action": u8, "auth": u8, "proxy_port": u16, "rule": u32, "l7": u32, "pad": u32},
    doc="action and authentication mode as numbered in tables.Action and model.Auth",
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

    def _read_peers(self) -> dict[PeerKey, int]:
        keys, values = self.peers.items()
        pairs = zip(keys["policy"].tolist(), keys["identity"].tolist(), values.tolist(), strict=True)
        return {(policy, identity): class_ for policy, identity, class_ in pairs}

    def _read_verdicts(self) -> dict[VerdictKey, VerdictValue]:
        keys, values = self.verdicts.items()
        names = ("prefixlen", "class", "protocol", "port")
        columns = zip(*(keys[name].tolist() for name in names), strict=True)
        fields = ("action", "auth", "proxy_port", "rule", "l7")
        rows = zip(*(values[name].tolist() for name in fields), strict=True)
        return {
            VerdictKey(*key): VerdictValue(Action(action), *rest)
            for key, (action, *rest) in zip(columns, rows, strict=True)
        }

    def add_verdicts(self, rows: Mapping[VerdictKey, VerdictValue]) -> None:
        if rows:
            self.verdicts.update_batch(_verdict_keys(rows), _verdict_values(rows.values()))

    def set_peers(self, rows: Mapping[PeerKey, int]) -> None:
        if rows:
            self.peers.update_batch(_peer_keys(rows), np.fromiter(rows.values(), np.uint32, len(rows)))

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

    def fail_closed(self, endpoints: Iterable[int]) -> None:
        """Takes the endpoints' policies away, so that everything to and from them is dropped."""
        self.set_subjects(dict.fromkeys(endpoints, NO_SUBJECT))


def _verdict_keys(keys: Iterable[VerdictKey]) -> np.ndarray[Any, Any]:
    keys = list(keys)
    array = np.zeros(len(keys), PORT.dtype)
    array["prefixlen"] = [key.prefix for key in keys]
    array["class"] = [key.class_ for key in keys]
    array["protocol"] = [key.protocol for key in keys]
    array["port"] = [key.port for key in keys]
    return array


def _verdict_values(values: Iterable[VerdictValue]) -> np.ndarray[Any, Any]:
    values = list(values)
    array = np.zeros(len(values), VERDICT.dtype)
    array["action"] = [int(value.action) for value in values]
    array["auth"] = [value.auth for value in values]
    array["proxy_port"] = [value.proxy_port for value in values]
    array["rule"] = [value.rule for value in values]
    array["l7"] = [value.l7 for value in values]
    return array


def _peer_keys(keys: Iterable[PeerKey]) -> np.ndarray[Any, Any]:
    keys = list(keys)
    array = np.zeros(len(keys), PEER.dtype)
    array["policy"] = [policy for policy, _ in keys]
    array["identity"] = [identity for _, identity in keys]
    return array


assert PORT.size * 8 == FULL_BITS + 32, "the prefix length counts every bit behind itself"
