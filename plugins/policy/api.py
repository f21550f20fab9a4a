"""What the agent answers about policy: the effective decision tables, the rules behind them, and their problems."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from axoneme.core.plugin import PluginContext
from axoneme.core.records import ApiMethod
from axoneme.core.workloads.endpoints import ENDPOINTS, Endpoint
from axoneme.plugins.policy import reconciler
from axoneme.plugins.policy.blocks import PORT_BITS, Block, specificity
from axoneme.plugins.policy.engine import Engine
from axoneme.plugins.policy.model import Direction, Protocol
from axoneme.plugins.policy.statements import Verdict


def methods(context: PluginContext) -> Iterable[ApiMethod]:
    def get(workload: str = "") -> dict[str, Any]:
        names = {row.id: row.uid for row in context.state.table(ENDPOINTS.name, Endpoint)}
        return describe(reconciler.of(context).engine, names, workload)

    def why(source: str, destination: str, port: str) -> dict[str, Any]:
        from axoneme.plugins.policy import explaining

        return explaining.answer(context, source, destination, port)

    from axoneme.plugins.policy.rehearsal.methods import methods as rehearsals

    return [
        *rehearsals(context),
        ApiMethod(
            name="policy.explain",
            call=why,
            summary="why a flow is allowed or denied: source, destination (workloads, labels, addresses), port/protocol",
        ),
        ApiMethod(
            name="policy.get",
            call=get,
            summary="decision tables of one workload ([namespace/]name or endpoint id) or all, and their rules",
        ),
    ]


def describe(engine: Engine, names: dict[int, str], workload: str = "") -> dict[str, Any]:
    """The answer of `policy.get`: only of a workload where one is named, as JSON-like values."""
    chosen = [endpoint for endpoint in sorted(engine.subjects) if _is(endpoint, names, workload)]
    subjects = [_subject(engine, endpoint, names.get(endpoint, "")) for endpoint in chosen]
    rows = [row for one in subjects for name in Direction for row in _rows(one[name.value])]
    used = {row["rule"] for row in rows} | {row["would_deny"] for row in rows} - {None}
    rules = [_rule(engine, number) for number in sorted(used)]
    return {"workloads": subjects, "rules": rules, "policies": sorted(engine.policies)}


def _is(endpoint: int, names: dict[int, str], workload: str) -> bool:
    uid = names.get(endpoint, "")
    return not workload or workload in (uid, uid.rpartition("/")[2], str(endpoint))


def _rows(direction: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for peers in direction["peers"]:
        yield from peers["decisions"]


def _subject(engine: Engine, endpoint: int, name: str) -> dict[str, Any]:
    resolved = engine.resolved(endpoint)
    error = str(resolved.error) if resolved is not None and resolved.error is not None else None
    directions = {one.value: _direction(engine, endpoint, one) for one in Direction}
    return {"endpoint": endpoint, "name": name, "error": error, **directions}


def _direction(engine: Engine, endpoint: int, direction: Direction) -> dict[str, Any]:
    entry = engine.tables.subjects.get(endpoint)
    return {
        "policy": entry.policy(direction) if entry else 0,
        "enforced": entry.enforced(direction) if entry else False,
        "peers": [
            {
                "selectors": list(selectors) or ["(everybody else)"],
                "identities": identities,
                "decisions": [
                    _decision(engine, block, verdict)
                    for block, verdict in sorted(
                        decisions.items(), key=lambda one: (-specificity(one[0]), one[0])
                    )
                ],
            }
            for selectors, (decisions, identities) in engine.decisions(endpoint, direction).items()
        ],
    }


def _decision(engine: Engine, block: Block, verdict: Verdict) -> dict[str, Any]:
    action = ("redirect" if verdict.l7 else "allow") if verdict.allow else "deny"
    return {
        "ports": block_text(block),
        "action": action,
        "auth": verdict.auth.text if verdict.auth else None,
        "proxy": verdict.l7.redirect if verdict.l7 else None,
        "rule": engine.rules.number(verdict.rule),
        "would_deny": engine.rules.number(verdict.would.rule) if verdict.would else None,
    }


def block_text(block: Block) -> str:
    """`80/TCP`, `1024-2047/TCP`, `all/UDP` or `any`."""
    protocol, bits, first = block
    if not protocol:
        return "any"
    if not bits:
        return f"all/{Protocol(protocol).name}"
    last = first + (1 << (PORT_BITS - bits)) - 1
    return f"{first if first == last else f'{first}-{last}'}/{Protocol(protocol).name}"


def _rule(engine: Engine, number: int) -> dict[str, Any]:
    row = engine.rules.row(number)
    if row is None:
        return {"id": number}
    policy = engine.policies.get(f"{row.kind}/{row.namespace}/{row.name}")
    return {
        "id": number,
        "policy": "/".join(part for part in (row.kind, row.namespace, row.name) if part),
        "direction": row.direction,
        "path": row.path,
        "effect": row.effect,
        "mode": "audit" if policy is not None and engine.is_audited(policy) else "enforce",
        "where": f"{row.file}:{row.line}" if row.line else row.file,
        "text": row.text,
    }
