"""What a demo showed, for programs."""

from __future__ import annotations

from typing import Any

from axoneme.core.demo.article import ALLOWED, DROPPED
from axoneme.core.demo.running import Result
from axoneme.core.demo.tallies import Tally
from axoneme.core.demo.verdicts import Verdict


def report(result: Result) -> dict[str, Any]:
    """The whole for programs, with stable keys."""
    verdicts = result.verdicts
    return {
        "ok": result.ok,
        "seconds": round(result.seconds, 3),
        "counts": {
            "requests": len(verdicts),
            "allowed": sum(verdict.seen == ALLOWED for verdict in verdicts),
            "dropped": sum(verdict.seen == DROPPED for verdict in verdicts),
            "differing": result.wrong,
        },
        "workloads": [
            {
                "name": endpoint.uid,
                "endpoint": endpoint.id,
                "identity": endpoint.identity,
                "netns": endpoint.netns,
                "addresses": [str(address) for address in endpoint.addresses],
            }
            for endpoint in result.endpoints.values()
        ],
        "resources": [{"file": file, "in_force": True, "waits_for": []} for file in result.active]
        + [
            {"file": file, "in_force": False, "waits_for": list(names)}
            for file, names in result.waiting.items()
        ],
        "requests": [_request(verdict) for verdict in verdicts],
        "services": [_service(each) for each in result.tallies],
        "flows": dict(result.observed.verdicts) if result.observed else {},
    }


def _service(tally: Tally) -> dict[str, Any]:
    call = tally.call
    return {
        "service": call.service,
        "kind": call.kind,
        "port": call.port,
        "source": call.source,
        "family": f"IPv{tally.family}",
        "way": tally.way,
        "expected": dict(tally.expected),
        "seen": dict(tally.seen),
        "ok": tally.ok,
    }


def _request(verdict: Verdict) -> dict[str, Any]:
    flow = verdict.flow
    return {
        "source": flow.source,
        "destination": flow.destination,
        "port": flow.port,
        "family": f"IPv{flow.family}",
        "way": flow.way,
        "expected": verdict.expected,
        "seen": verdict.seen,
        "ok": verdict.ok,
        "reason": verdict.reason,
        "rules": [
            {
                "direction": rule.direction,
                "id": rule.id,
                "policy": rule.policy,
                "path": rule.path,
                "effect": rule.effect,
                "file": rule.file,
                "line": rule.line,
            }
            for rule in verdict.decisions
        ],
        "decided_by": verdict.why,
    }
