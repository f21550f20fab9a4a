"""The figures of the policy engine: what a change of policy, identity or workload costs until the tables are up to date.

All but `policy.file_to_map` are of the engine alone, as the reconciler uses it: a change, then `commit()`, whose plan is
what would be written. Times are of the process (`process_time`), so that what else runs on the machine does not count.
Each sample has an engine of its own, filled beforehand.

The rules are a mix: nine of ten name a peer by its application, the others by its team (so that the classes of peers
overlap); one in twenty denies, one in ten opens a range of ports, one in fifty speaks of a prefix, and one in a hundred
has no peer. Each is a policy of its own.
"""

from __future__ import annotations

import gc
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import yaml
from figures import Figure

from axoneme.core.workloads.identities import RESERVED, workload_labels
from axoneme.plugins.policy.engine import Engine
from axoneme.plugins.policy.language import parse_policy
from axoneme.plugins.policy.model import Policy
from axoneme.plugins.policy.selectors import Identity
from axoneme.plugins.policy.subject import Subject

if TYPE_CHECKING:
    from axoneme.core.testing.node import Node

NAMESPACE = "bench"
#: The identities of workloads begin here.
FIRST = 256
RULES, IDENTITIES = 1000, 1000
MANY_RULES, SUBJECTS = 5000, 100
MANY_IDENTITIES, SELECTORS, ADDED = 10_000, 1000, 200
POLICIES, WORKLOADS, CHANGES = 1000, 10, 20


def labels_of(number: int, apps: int) -> tuple[str, ...]:
    """Eight labels, as a workload of a cluster has them."""
    own = {
        "app": f"app{number % apps}",
        "team": f"team{number % 20}",
        "version": f"v{number // apps}",
        "tier": ("front", "back", "data")[number % 3],
    }
    return workload_labels(
        own, NAMESPACE, namespace_labels={"env": "prod"}, service_account=f"sa{number % 50}"
    )


def rule_of(number: int, apps: int) -> tuple[str, dict[str, Any]]:
    """The name of its list, and a rule: of ingress."""
    peer: dict[str, Any] = {"fromEndpoints": [{"matchLabels": {"app": f"app{number * 7 % apps}"}}]}
    if number % 100 == 99:
        peer = {}
    elif number % 50 == 48:
        peer = {
            "fromCIDRSet": [{"cidr": f"10.{number % 250}.0.0/16", "except": [f"10.{number % 250}.1.0/24"]}]
        }
    elif number % 10 == 9:
        peer = {"fromEndpoints": [{"matchLabels": {"team": f"team{number // 10 % 20}"}}]}
    port: dict[str, Any] = {"port": str(1024 + number), "protocol": "TCP"}
    if number % 10 == 4:
        port["endPort"] = 1024 + number + 99
    return "ingressDeny" if number % 20 == 7 else "ingress", {**peer, "toPorts": [{"ports": [port]}]}


def policy(name: str, subject: dict[str, str], number: int, apps: int) -> dict[str, Any]:
    side, rule = rule_of(number, apps)
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"endpointSelector": {"matchLabels": subject}, side: [rule]},
    }


def parsed(name: str, subject: dict[str, str], number: int, apps: int) -> Policy:
    return parse_policy(policy(name, subject, number, apps))


def filled(identities: int, apps: int) -> Engine:
    engine = Engine()
    for number, labels in RESERVED.items():
        engine.upsert_identity(Identity(number, labels))
    for number in range(identities):
        engine.upsert_identity(Identity(FIRST + number, labels_of(number, apps)))
    return engine


def subject(number: int, apps: int) -> Subject:
    return Subject(labels_of(number, apps))


def milliseconds(work: Callable[[], object]) -> float:
    gc.collect()
    begin = time.process_time()
    work()
    return (time.process_time() - begin) * 1000


def resolve(rounds: int) -> Sequence[float]:
    """Nothing of the subject, nor whom its rules' selectors select, has been looked at before. The rules are loaded."""

    def one() -> float:
        engine = filled(IDENTITIES, IDENTITIES)
        for number in range(RULES):
            engine.upsert_policy(parsed(f"p{number}", {"app": "app0"}, number, IDENTITIES))
        engine.commit()
        engine.upsert_subject(1, subject(0, IDENTITIES))
        took = milliseconds(engine.commit)
        assert engine.tables.peer_count >= IDENTITIES * 0.8
        return took

    return [one() for _ in range(rounds)]


def rule_added(rounds: int) -> Sequence[float]:
    """The subjects have fifty rules each, and the new one in common.

    The first change is the dearest (the maximum of the figure): its policy is by its name the first to turn default deny
    on, so that every default deny is due to another policy than before, and every class another one.
    """
    engine = filled(IDENTITIES, SUBJECTS)
    for number in range(MANY_RULES):
        engine.upsert_policy(
            parsed(f"p{number}", {"app": f"app{number % SUBJECTS}"}, number // SUBJECTS * 101, SUBJECTS)
        )
    for number in range(SUBJECTS):
        engine.upsert_subject(1 + number, subject(number, SUBJECTS))
    engine.commit()

    def one(turn: int) -> float:
        added = parsed(f"added{turn}", {}, 33 + 100 * turn, SUBJECTS)

        def work() -> None:
            engine.upsert_policy(added)
            assert len(engine.commit().set_subjects) == SUBJECTS

        return milliseconds(work)

    return [one(turn) for turn in range(rounds)]


def _wide() -> Engine:
    engine = filled(MANY_IDENTITIES, 2000)
    for number in range(SELECTORS):
        engine.upsert_policy(parsed(f"p{number}", {"app": "app0"}, number, 2000))
    engine.commit()
    engine.upsert_subject(1, subject(0, 2000))
    return engine


def first_resolve(rounds: int) -> Sequence[float]:
    return [milliseconds(_wide().commit) / 1000 for _ in range(rounds)]


def identity_added(_rounds: int) -> Sequence[float]:
    """Each of 200 is selected by some of the thousand selectors."""
    engine = _wide()
    engine.commit()

    def one(turn: int) -> float:
        added = Identity(FIRST + MANY_IDENTITIES + turn, labels_of(7 * turn, 2000)[:-1])

        def work() -> None:
            engine.upsert_identity(added)
            engine.commit()

        return milliseconds(work)

    return [one(turn) for turn in range(ADDED)]


def file_to_map(_rounds: int) -> Sequence[float]:
    """Of a whole agent with ten workloads: from a policy's file being replaced to the last write it caused.

    Wall time. The changed rule opens another port to one peer, of one workload in ten.
    """
    from axoneme.core.testing.node import Node  # not in the memory of the other figures

    with Node({"plugins": {"enabled": ["policy"]}}) as node:
        node.start()
        for number in range(WORKLOADS):
            node.workload(f"w{number}", namespace=NAMESPACE, app=f"app{number}")
        for number in range(POLICIES):
            _write(node, number, number)
        node.until(lambda: len(node.call("policy.get")["policies"]) == POLICIES, "all policies are in force")
        if problems := node.problems():
            raise RuntimeError(f"the agent of the bench is not well: {problems}")
        return [_changed(node, turn) for turn in range(CHANGES)]


def _changed(node: Node, turn: int) -> float:
    before = node.metric("axoneme_policy_updates_total")
    begin = time.time()
    _write(node, turn * 10, POLICIES + turn * 100)
    time.sleep(0.2)  # asking would take the agent's time
    node.until(lambda: node.metric("axoneme_policy_updates_total") > before, "the change is in the maps")
    return (node.metric("axoneme_policy_last_write_timestamp_seconds") - begin) * 1000


def _write(node: Node, name: int, number: int) -> None:
    value = policy(f"p{name}", {"app": f"app{name % WORKLOADS}"}, number, WORKLOADS)
    node.resource(f"p{name}.yaml", yaml.safe_dump(value))


def rss(rounds: int) -> Sequence[float]:
    """Of a process for itself that does all of the above once."""
    command = [sys.executable, __file__, "--rss"]
    return [float(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(rounds)]


def _peak() -> float:
    for work in (resolve, rule_added, first_resolve, identity_added):
        work(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def figures() -> list[Figure]:
    return [
        Figure(name="policy.resolve", unit="ms", limit=35, what="one subject, 1,000 rules, 1,000 identities", measure=resolve),
        Figure(name="policy.rule_added", unit="ms", limit=60, what="one rule to 5,000, 100 subjects recomputed", measure=rule_added),
        Figure(name="policy.identity_added", unit="ms", limit=0.4, what="one identity to 10,000, 1,000 selectors", measure=identity_added),
        Figure(name="policy.first_resolve", unit="s", limit=1, what="one subject, 1,000 selectors, 10,000 identities", measure=first_resolve),
        Figure(name="policy.file_to_map", unit="ms", limit=100, what="a file changed, of 1,000, to the last map write", measure=file_to_map),
        Figure(name="policy.rss", unit="MiB", limit=150, what="peak memory of these", measure=rss),
    ]  # fmt: skip


if __name__ == "__main__":
    print(_peak())
