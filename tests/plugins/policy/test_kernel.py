"""The real program decides as the engine does: action, drop reason and rule id, on made packets."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations, product
from typing import Any

import pytest
from generators import PODS

from axoneme.core.datapath.reasons import REASONS
from axoneme.core.records import Stage
from axoneme.core.testing.datapath import Action, DatapathBench
from axoneme.core.testing.packets import (
    ICMP,
    TCP,
    UDP,
    Ethernet,
    ICMPv6,
    IPv4,
    IPv6,
    build,
)
from axoneme.core.testing.packets import echo as icmp_echo
from axoneme.plugins import policy
from axoneme.plugins.policy.config import PolicyConfig
from axoneme.plugins.policy.engine import Engine
from axoneme.plugins.policy.language import parse_policy
from axoneme.plugins.policy.maps import PolicyMaps, specs
from axoneme.plugins.policy.model import Auth, Direction, Protocol
from axoneme.plugins.policy.selectors import Identity
from axoneme.plugins.policy.subject import Subject
from axoneme.plugins.policy.tables import Action as Decision
from axoneme.plugins.policy.tables import VerdictValue

pytestmark = pytest.mark.kernel

REASON = {reason.number: reason.name for reason in REASONS}
#: Endpoint number (from 1) to the workload it is.
LOCAL = dict(enumerate(PODS, 1))


def cnp(name: str, app: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name, "namespace": "blue"},
        "spec": {"endpointSelector": {"matchLabels": {"app": app}}, **spec},
    }


def peer(app: str, *ports: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"fromEndpoints": [{"matchLabels": {"app": app}}], "toPorts": [{"ports": list(ports)}], **more}


POLICIES = [
    cnp(
        "ranges",
        "a",
        ingress=[
            peer("b", {"port": "1000", "endPort": 2999, "protocol": "TCP"}, {"port": "53"}),
            {"fromEndpoints": [{"matchLabels": {"app": "c"}}]},
        ],
        ingressDeny=[peer("c", {"port": "2000", "endPort": 2047, "protocol": "TCP"})],
    ),
    cnp(
        "modes",
        "b",
        ingress=[
            peer("a", {"port": "80", "protocol": "TCP"}, authentication={"mode": "required"}),
            {
                **peer("c", {"port": "80", "protocol": "TCP"}),
                "toPorts": [
                    {"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": [{"method": "GET"}]}}
                ],
            },
            {"fromEntities": ["all"], "icmps": [{"fields": [{"type": 8}, {"family": "IPv6", "type": 128}]}]},
        ],
    ),
    cnp(
        "out", "c", egress=[{"toEndpoints": [{}], "toPorts": [{"ports": [{"port": "0", "protocol": "TCP"}]}]}]
    ),
]


@pytest.fixture(scope="module")
def engine() -> Engine:
    engine = Engine()
    for number, identity in LOCAL.items():
        engine.upsert_identity(Identity(identity, PODS[identity]))
        engine.upsert_subject(number, Subject(PODS[identity]))
    for one in POLICIES:
        engine.upsert_policy(parse_policy(one))
    engine.commit()
    return engine


@pytest.fixture(scope="module")
def bench(engine: Engine) -> Iterator[DatapathBench]:
    with DatapathBench(_stages(), specs(1024, 4096)) as bench:
        for number, identity in LOCAL.items():
            bench.workload(
                number, f"w{number}", identity=identity, ipv4=f"10.0.0.{number}", ipv6=f"fd00::{number}"
            )
        maps = PolicyMaps(*(bench.map(f"policy_{name}") for name in ("subjects", "peers", "verdicts")))
        tables = engine.tables
        maps.add_verdicts(tables.verdicts)
        maps.set_peers(tables.peers)
        maps.set_subjects(tables.subjects)
        assert maps.read() == tables
        yield bench


def _stages() -> list[tuple[str, Stage]]:
    class Context:
        config = PolicyConfig()

    return [("policy", stage) for stage in policy.axoneme_stages(Context())]  # type: ignore[arg-type]


def frame(source: int, target: int, protocol: Protocol, port: int, sport: int, family: int) -> bytes:
    ethernet = Ethernet(src=f"02:00:00:00:00:{source:02x}", dst=f"06:00:00:00:00:{source:02x}")
    if family == 4:
        ip: Any = IPv4(f"10.0.0.{source}", f"10.0.0.{target}")
        echo: Any = ICMP(8, rest=icmp_echo(sport, 1))
    else:
        ip, echo = IPv6(f"fd00::{source}", f"fd00::{target}"), ICMPv6(128, rest=icmp_echo(sport, 1))
    transports = {Protocol.TCP: TCP(sport, port, flags=2), Protocol.UDP: UDP(sport, port)}
    return build(ethernet, ip, transports.get(protocol, echo), b"payload")


def expected(
    engine: Engine, source: int, target: int, protocol: Protocol, port: int
) -> tuple[str | None, int, int]:
    """Drop reason (None: it passes), the rule of egress and of ingress; 0 where nobody was asked."""
    rules, owed = [0, 0], set()
    for at, (own, other, direction) in enumerate(
        ((source, target, Direction.EGRESS), (target, source, Direction.INGRESS))
    ):
        if not engine.tables.subjects[own].enforced(direction):
            continue
        found = engine.tables.lookup(own, direction, LOCAL[other], int(protocol), port)
        assert isinstance(found, VerdictValue)
        rules[at] = found.rule
        if not found.action.allows:
            reason = "POLICY_DENY" if found.action is Decision.DENY_RULE else "POLICY_DENIED"
            return reason, rules[0], rules[1]
        owed |= {"AUTH_REQUIRED"} if found.auth > Auth.DISABLED else set()
        owed |= {"PROXY_ABSENT"} if found.action is Decision.REDIRECT else set()
    return (min(owed) if owed else None), rules[0], rules[1]


@pytest.mark.parametrize("family", [4, 6])
def test_the_program_decides_as_the_engine(engine: Engine, bench: DatapathBench, family: int) -> None:
    echo = (Protocol.ICMP, 8) if family == 4 else (Protocol.ICMPV6, 128)
    ports = (1, 53, 80, 81, 999, 1000, 1999, 2000, 2047, 2048, 2999, 3000, 65535)
    services = [echo, *product((Protocol.TCP, Protocol.UDP), ports)]
    seen = set()
    for turn, ((source, target), (protocol, port)) in enumerate(product(permutations(LOCAL, 2), services)):
        want = expected(engine, source, target, protocol, port)
        packet = frame(source, target, protocol, port, 10_000 + turn, family)
        outcome = bench.run("from_workload", packet, sender=f"w{source}")
        (event,) = outcome.events
        reason = REASON[int(event["reason"])] if outcome.action is Action.SHOT else None
        got = (reason, int(event["egress_rule"]), int(event["ingress_rule"]))
        assert got == want, (source, target, protocol, port)
        seen.add(reason)
    assert seen >= {None, "POLICY_DENIED", "POLICY_DENY", "AUTH_REQUIRED", "PROXY_ABSENT"}
