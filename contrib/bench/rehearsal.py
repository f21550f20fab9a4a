"""The figures of explanations and rehearsals: how long somebody waits for an answer, among a thousand policies.

CPU time of the process that answers: the agent itself for `policy.explain`, a process of its own for the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from event_store import BATCHES, RECORDS, filled, store
from figures import Figure

from axoneme.core.workloads.identities import RESERVED, workload_labels
from axoneme.plugins.policy.explain import explain
from axoneme.plugins.policy.parties import Workload
from axoneme.plugins.policy.rehearsal.diff import diff
from axoneme.plugins.policy.rehearsal.inputs import Inputs, rehearse
from axoneme.plugins.policy.rehearsal.objects import objects_of
from axoneme.plugins.policy.rehearsal.recorded import recorded
from axoneme.plugins.policy.subject import Subject

POLICIES, WORKLOADS, IDENTITIES, APPS, NAMESPACES = 1000, 200, 1000, 500, 20

_POLICY = """\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {{name: p{number}, namespace: ns{namespace}}}
spec:
  endpointSelector: {{matchLabels: {{app: {subject}}}}}
  ingress:
    - fromEndpoints: [{{matchLabels: {{app: a{peer}, k8s:io.kubernetes.pod.namespace: ns{other}}}}}]
      toPorts: [{{ports: [{{port: "{port}", protocol: TCP}}]}}]
    - fromCIDR: [10.{octet}.0.0/16]
"""
_WIDE = """\
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: wide}
spec:
  endpointSelector: {}
  egress: [{toEntities: [cluster]}]
"""


def inputs(subject: str = "") -> Inputs:
    """:param subject: the application that all policies select; empty for one each."""
    identities, workloads = dict(RESERVED), []
    for number in range(IDENTITIES):
        namespace = f"ns{0 if subject else number % NAMESPACES}"
        identities[256 + number] = labels = workload_labels(
            {"app": f"a{number % APPS}", "n": f"n{number}"}, namespace
        )
        if number < WORKLOADS:
            made = Workload(
                endpoint=1 + number,
                name=f"{namespace}/w{number}",
                identity=256 + number,
                subject=Subject(labels),
            )
            workloads.append(made)
    text = "---\n".join(
        _POLICY.format(
            number=number, namespace=0 if subject else number % NAMESPACES, subject=subject or f"a{number % APPS}",
            peer=number * 7 % APPS, other=number * 3 % NAMESPACES, port=1000 + number, octet=number % 250,
        )
        for number in range(POLICIES)
    )  # fmt: skip
    return Inputs(identities=identities, workloads=tuple(workloads)).changed(_objects(text))


def _objects(text: str) -> Any:
    return objects_of([("bench.yaml", text)]).objects


def _timed(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def explained(rounds: int) -> Sequence[float]:
    """ms: all thousand policies select the workload, and none allows the flow, so that a rule is sought and tried."""
    made = rehearse(inputs("a1"))
    parties = made.parties()
    return [_timed(lambda: explain(made.engine, parties, "w3", "w1", "99")) * 1000 for _ in range(rounds)]


def compared(rounds: int) -> Sequence[float]:
    """s: a policy is added that concerns every workload."""
    before = inputs()
    after = before.changed(_objects(_WIDE))
    return [_timed(lambda: diff(before, after)) for _ in range(rounds)]


def gathered(rounds: int) -> Sequence[float]:
    """ns for each record, of which nearly all are flows of their own."""
    with store() as opened:
        filled(opened)
        return [_timed(lambda: recorded(opened.folder)) / (BATCHES * RECORDS) * 1e9 for _ in range(rounds)]


def figures() -> list[Figure]:
    return [
        Figure(
            name="policy.explain", unit="ms", limit=250, measure=explained,
            what="a denied flow is explained, 1,000 policies selecting the workload",
        ),
        Figure(
            name="policy.diff", unit="s", limit=15, measure=compared,
            what="a policy for all of 200 workloads and 1,000 identities, beside 1,000 policies",
        ),
        Figure(
            name="policy.replay.record", unit="ns", limit=20_000, measure=gathered,
            what="a recorded connection is gathered for a replay, 100,000 different flows",
        ),
    ]  # fmt: skip
