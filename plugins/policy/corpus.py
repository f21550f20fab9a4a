"""Runs cases of a conformance corpus through the real path: parse, resolve, number, look up as the kernel would.

The format is that of Cilium-derived corpora: one JSON object per line with policies, endpoints, flows and what is
expected of each side of each flow.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from axoneme.core.errors import AxonemeError, ResourceError, Where
from axoneme.core.workloads import identities
from axoneme.core.workloads.identities import workload_labels
from axoneme.plugins.policy.engine import Engine
from axoneme.plugins.policy.kinds import PARSERS
from axoneme.plugins.policy.model import Auth, CidrGroup, Direction, Network, Policy, Protocol
from axoneme.plugins.policy.peers import Scope
from axoneme.plugins.policy.prefixes import longest, world_labels
from axoneme.plugins.policy.selectors import Identity
from axoneme.plugins.policy.subject import Enforcement, Settings, Subject

RESERVED = {labels[0].removeprefix("reserved:"): number for number, labels in identities.RESERVED.items()}
#: Reserved peers that have a policy of their own, with the endpoint number they get here.
_LOCAL = {"host": 1, "health": 2, "init": 3, "ingress": 4}
_FIRST_POD = 256
_FIRST_CIDR = 1 << 24


@frozen
class Side:
    """One side's answer, in the corpus' own words."""

    verdict: str
    enforced: bool
    auth: str = "none"
    l7: str = "none"
    listener: str = ""


@frozen
class Mismatch:
    case: str
    kind: str
    detail: str


@define
class Summary:
    """:param sides: how many sides were compared; `mismatches` names those that differ."""

    cases: int = 0
    flows: int = 0
    sides: int = 0
    mismatches: list[Mismatch] = field(factory=list)


class CorpusError(AxonemeError):
    """A file that is no corpus."""


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The cases of a `.jsonl` or `.jsonl.gz` file. Raises `CorpusError` with file and line."""
    opener = gzip.open if path.suffix == ".gz" else open
    number = 0
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                number += 1
                if line.strip():
                    yield _checked(json.loads(line))
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise CorpusError(
            f"not a corpus: {error}",
            where=Where(str(path), max(number, 1)),
            hint="one JSON object a line, perhaps gzipped",
        ) from None


def _checked(case: Any) -> dict[str, Any]:
    """A case that has what every case has. Raises `ValueError`."""
    if not isinstance(case, dict):
        raise ValueError("a case is an object")
    for name, kind in (
        ("name", str),
        ("namespaces", dict),
        ("policies", list),
        ("endpoints", dict),
        ("flows", list),
    ):
        if not isinstance(case.get(name), kind):
            raise ValueError(f"a case needs {name!r}")
    results = case["expected"].get("results") if isinstance(case.get("expected"), dict) else None
    if not isinstance(results, list) or len(results) != len(case["flows"]):
        raise ValueError("a case needs 'expected' with a result for each flow")
    return case


class CaseWorld:
    """A case, loaded into an engine."""

    def __init__(self, case: dict[str, Any]) -> None:
        config = case.get("config", {})
        self.dual_stack = bool(config.get("dualStack"))
        self.rejected: dict[int, ResourceError] = {}
        self.policies: list[Policy] = []
        self.groups: list[CidrGroup] = []
        self.engine = Engine(
            Settings(
                enforcement=Enforcement(config.get("enforcement", "default")),
                allow_localhost=config.get("allowLocalhost", "always") == "always",
                host_firewall=bool(config.get("hostFirewall")),
                non_default_deny=config.get("nonDefaultDeny", True),
            )
        )
        self._parse(case["policies"], bool(config.get("policyDefaultLocalCluster")))
        self._numbers: dict[str, int] = dict(RESERVED)
        self._endpoints: dict[str, int] = dict(_LOCAL)
        self._add_reserved()
        self._add_pods(case)
        self._prefixes = self._add_world(case)
        for policy in self.policies:
            self.engine.upsert_policy(policy)
        self.engine.commit()

    def _parse(self, objects: list[dict[str, Any]], local_cluster: bool) -> None:
        scope = Scope(dual_stack=self.dual_stack, default_local_cluster=local_cluster, schema=False)
        for index, value in enumerate(objects):
            try:
                parsed = PARSERS[value["kind"]](value, scope=scope)
            except ResourceError as error:
                self.rejected[index] = error
                continue
            (self.groups if isinstance(parsed, CidrGroup) else self.policies).append(parsed)  # type: ignore[arg-type]

    def _add_reserved(self) -> None:
        for name, number in RESERVED.items():
            if name.startswith("world-") and not self.dual_stack:
                continue
            labels = identities.RESERVED[number]
            self.engine.upsert_identity(Identity(number, labels))
            if name in _LOCAL:
                self.engine.upsert_subject(_LOCAL[name], Subject(labels, host=name == "host"))

    def _add_pods(self, case: dict[str, Any]) -> None:
        by_labels: dict[tuple[str, ...], int] = {}
        for name, endpoint in sorted(case["endpoints"].items()):
            labels = workload_labels(
                endpoint.get("labels", {}),
                endpoint["namespace"],
                namespace_labels=case["namespaces"].get(endpoint["namespace"], {}).get("labels", {}),
                service_account=endpoint.get("serviceAccount", ""),
                cluster=endpoint.get("cluster", "default"),
            )
            number = by_labels.setdefault(labels, _FIRST_POD + len(by_labels))
            self._numbers[name] = number
            self._endpoints[name] = _FIRST_POD + len(self._endpoints)
            ports = endpoint.get("namedPorts", {})
            named = tuple((key, Protocol[one["protocol"]], one["port"]) for key, one in sorted(ports.items()))
            self.engine.upsert_identity(Identity(number, labels))
            self.engine.upsert_subject(self._endpoints[name], Subject(labels, named))

    def _add_world(self, case: dict[str, Any]) -> dict[Network, int]:
        dns = {name: [ip_address(one) for one in found] for name, found in case.get("dns", {}).items()}
        labels = world_labels(self.policies, self.groups, dns, dual_stack=self.dual_stack)
        numbers = {prefix: _FIRST_CIDR + index for index, prefix in enumerate(sorted(labels, key=str))}
        for prefix, number in numbers.items():
            self.engine.upsert_identity(Identity(number, labels[prefix]))
        return numbers

    def identity(self, peer: str) -> int:
        if not peer.startswith("world:"):
            return self._numbers[peer]
        address = ip_address(peer.removeprefix("world:"))
        prefix = longest(self._prefixes, address)
        if prefix is not None:
            return self._prefixes[prefix]
        return RESERVED[f"world-ipv{address.version}" if self.dual_stack else "world"]

    def endpoint(self, peer: str) -> int | None:
        """The number of a peer that has a policy of its own."""
        return self._endpoints.get(peer)

    @property
    def prefixes(self) -> Mapping[Network, int]:
        """The identities of the prefixes that the policies speak of."""
        return self._prefixes

    def labels(self, peer: str) -> tuple[str, ...]:
        """The identity labels of a flow's peer."""
        known = self.engine.universe.labels(self.identity(peer))
        return () if known is None else known.texts

    def side(self, direction: Direction, flow: dict[str, Any]) -> Side | None:
        """The answer of the flow's source (egress) or destination (ingress); None if it has no policy of its own."""
        own, peer = ("src", "dst") if direction is Direction.EGRESS else ("dst", "src")
        endpoint = self._endpoints.get(flow[own])
        if endpoint is None:
            return None
        if endpoint in self.engine.errors():
            return Side("error", False)
        protocol = Protocol[flow["protocol"].upper()]
        identity = self.identity(flow[peer])
        found = self.engine.tables.lookup(endpoint, direction, identity, int(protocol), flow["port"])
        enforced = self.engine.tables.subjects[endpoint].enforced(direction)
        if found is None or not found.action.allows:
            return Side("deny", enforced)
        rules = self.engine.l7.get(found.l7)
        auth = Auth(found.auth).text if found.auth else "none"
        kind, listener = (rules.redirect, rules.listener) if rules else ("none", "")
        return Side("allow", enforced, auth, kind, listener)


def run(cases: Iterable[dict[str, Any]]) -> Summary:
    """Compares every case: the set of rejected objects, and each side's verdict, enforcement, authentication and kind."""
    summary = Summary()
    for case in cases:
        summary.cases += 1
        _run_case(case, summary)
    return summary


def _run_case(case: dict[str, Any], summary: Summary) -> None:
    world = CaseWorld(case)
    expected = {one["policy"] for one in case["expected"].get("rejected", ())}
    for index in sorted(expected ^ world.rejected.keys()):
        reason = str(world.rejected.get(index, "accepted"))
        summary.mismatches.append(Mismatch(case["name"], "rejected", f"policy {index}: {reason}"))
    for flow, result in zip(case["flows"], case["expected"]["results"], strict=True):
        summary.flows += 1
        for direction in Direction:
            want = result[direction.value]
            summary.sides += want is not None
            _compare(case["name"], direction, flow, want, world.side(direction, flow), summary)


def _compare(
    case: str, direction: Direction, flow: dict[str, Any], want: Any, got: Side | None, summary: Summary
) -> None:
    where = f"{direction.value} {flow['src']} -> {flow['dst']} {flow['port']}/{flow['protocol']}"
    if want is None or got is None:
        if want is not None or (got is not None and (got.verdict != "allow" or got.enforced)):
            summary.mismatches.append(Mismatch(case, "side", f"{where}: want {want}, got {got}"))
        return
    fields = ["verdict"] if want["verdict"] == "error" else ["verdict", "enforced", "auth", "l7"]
    for name in fields:
        expected = want.get(name, "none")
        if getattr(got, name) != expected:
            detail = f"{where}: want {expected}, got {getattr(got, name)}"
            summary.mismatches.append(Mismatch(case, name, detail))
            return
