"""`policy.explain` of a running agent: the parties out of its tables."""

from __future__ import annotations

from typing import Any

from axoneme.core.api.wire import RequestError
from axoneme.core.plugin import PluginContext
from axoneme.core.workloads.endpoints import ENDPOINTS, IDENTITIES, Endpoint, Identity
from axoneme.plugins.policy import reconciler
from axoneme.plugins.policy.engine import Engine
from axoneme.plugins.policy.explain import explain, rule_row
from axoneme.plugins.policy.maps import FULL_BITS
from axoneme.plugins.policy.model import Direction
from axoneme.plugins.policy.parties import Address, Parties, Workload, parse_port
from axoneme.plugins.policy.tables import Action, Flag, SubjectEntry, VerdictValue

#: The longest way to name somebody: two DNS names, or some labels.
_LONGEST = 4096


def parties_of(context: PluginContext) -> Parties:
    """Everybody whom the agent knows now."""
    endpoints = context.state.table(ENDPOINTS.name, Endpoint)
    identities = context.state.table(IDENTITIES.name, Identity)

    def behind(address: Address) -> int | None:
        found = context.workloads.ipcache.lookup(address)
        return None if found is None else found.identity

    return Parties(
        tuple(workload_of(row) for row in endpoints if row.labels),
        {row.number: row.labels for row in identities},
        behind,
    )


def workload_of(row: Endpoint) -> Workload:
    return Workload(
        endpoint=row.id, name=row.uid, identity=row.identity, subject=reconciler.subject_of(row), addresses=row.addresses
    )  # fmt: skip


def answer(context: PluginContext, source: str, destination: str, port: str) -> dict[str, Any]:
    """The engine's explanation, and beside it what the kernel's own tables say: they differ only where these have no room."""
    if not all(isinstance(one, str) and len(one) < _LONGEST for one in (source, destination, port)):
        raise RequestError("source, destination and port are words", hint="for example web, db, 5432/TCP")
    engine = reconciler.of(context).engine
    found = explain(engine, parties_of(context), source, destination, port)
    protocol, number = parse_port(found["port"])
    for side in found["sides"]:
        direction = Direction(side["direction"])
        kernel = in_kernel(
            context, side["subject"]["endpoint"], direction, side["peer"]["identity"], protocol, number
        )
        side["kernel"] = {
            "verdict": "denied" if kernel is None or not kernel.action.allows else "allowed",
            "rule": _by_number(engine, kernel.rule) if kernel is not None and kernel.rule else None,
        }
        if side["kernel"]["verdict"] == "denied":
            found["verdict"] = "denied"
    return found


def in_kernel(
    context: PluginContext, endpoint: int, direction: Direction, identity: int, protocol: int, port: int
) -> VerdictValue | None:
    """The lookups that the kernel makes, in its own maps. None: it drops for want of a policy."""
    subject = context.map("policy_subjects").lookup(endpoint)
    flags = Flag(int(subject["flags"])) if subject is not None else Flag(0)
    if subject is None or not flags & Flag.COMPUTED:
        return None
    policy = int(subject[direction.value])
    if not SubjectEntry(0, 0, flags).enforced(direction):
        return VerdictValue(Action.ALLOW)
    class_ = context.map("policy_peers").lookup({"policy": policy, "identity": identity})
    key = {
        "prefixlen": FULL_BITS, "class": policy if class_ is None else int(class_), "zero": 0, "protocol": int(protocol),
        "port": port,
    }  # fmt: skip
    found = context.map("policy_verdicts").lookup(key)
    if found is None:
        return None
    return VerdictValue(Action(int(found["action"])), rule=int(found["rule"]))


def _by_number(engine: Engine, number: int) -> dict[str, Any]:
    ref = engine.rules.ref(number)
    return (
        {"id": number, "policy": "", "path": "", "text": f"rule {number}"}
        if ref is None
        else rule_row(engine, ref)
    )
