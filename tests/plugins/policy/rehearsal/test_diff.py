"""Which traffic would change: pairs, ports, verdicts and rules, compared with asking the engine port by port."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from scenery import policies, workloads

from axoneme.core.api.wire import MAX_ANSWER, NotFoundError, RequestError, encode
from axoneme.core.errors import ResourceError
from axoneme.plugins.policy.corpus import CaseWorld, read
from axoneme.plugins.policy.model import Direction, Protocol
from axoneme.plugins.policy.parties import Workload
from axoneme.plugins.policy.rehearsal import worker
from axoneme.plugins.policy.rehearsal.diff import MAX_ROWS, diff
from axoneme.plugins.policy.rehearsal.inputs import Inputs, Rehearsed, rehearse
from axoneme.plugins.policy.rehearsal.outcomes import outcome

CORPUS = Path(__file__).parents[3] / "conformance" / "policy"
WORKLOADS = """\
- {name: db, namespace: prod, labels: {app: db}, ports: {sql: {port: 5432}}}
- {name: api, namespace: prod, labels: {app: api}}
- {name: api2, namespace: prod, labels: {app: api}}
- {name: web, namespace: prod, labels: {app: web}}
"""
OPEN = """\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: db, namespace: prod}
spec:
  endpointSelector: {matchLabels: {app: db}}
  ingress:
    - fromEndpoints: [{matchLabels: {app: api}}]
      toPorts: [{ports: [{port: sql, protocol: TCP}]}]
"""


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    return workloads(tmp_path, WORKLOADS)


def rows(answer: dict[str, Any]) -> set[tuple[str, str, str, str, str]]:
    def name(end: dict[str, Any]) -> str:
        return "+".join(one.partition("/")[2] for one in end["workloads"]) or str(end["name"])

    return {
        (name(row["source"]), name(row["destination"]), row["ports"], row["before"], row["after"])
        for row in answer["changes"]
    }


def test_a_first_policy_closes_all_but_what_it_opens(inputs: Inputs) -> None:
    answer = diff(inputs, policies(inputs, OPEN))
    found = rows(answer)
    assert ("web", "db", "any", "allow", "deny") in found
    ports = {row[2] for row in found if row[:2] == ("api+api2", "db")}
    assert ports == {"0-5431/TCP", "5433-65535/TCP", "any but TCP"}
    assert not any(row[0] == "host" for row in found), "the host reaches its workloads"
    assert not any(row[1] != "db" for row in found), "only what reaches it changes"
    (row,) = (row for row in answer["changes"] if row["source"]["workloads"] == ["prod/web"])
    assert row["rules_before"][0]["path"] == "no-policy"
    assert row["rules_after"][0] | {"id": 0} == {
        "id": 0, "kind": "CiliumNetworkPolicy", "policy": "prod/db", "path": "default-deny", "file": "new.yaml",
        "line": 1,
    }  # fmt: skip
    assert answer["policies"] == {"added": ["CiliumNetworkPolicy/prod/db"], "changed": [], "deleted": []}


def test_the_way_back_is_the_opposite(inputs: Inputs) -> None:
    closed = policies(inputs, OPEN)
    there, back = rows(diff(inputs, closed)), rows(diff(closed, closed.changed(deleted=closed.policies)))
    assert {(*row[:3], row[4], row[3]) for row in there} == back


def test_a_policy_of_the_same_meaning_changes_nothing(inputs: Inputs) -> None:
    closed = policies(inputs, OPEN)
    same = OPEN.replace(
        "matchLabels: {app: api}", "matchExpressions: [{key: app, operator: In, values: [api]}]"
    )
    answer = diff(closed, policies(closed, same))
    assert answer["changes"] == []
    assert answer["policies"]["changed"] == ["CiliumNetworkPolicy/prod/db"]


def test_what_the_other_side_denies_anyway_is_no_change(inputs: Inputs) -> None:
    """Egress and ingress together: what the peer's own policy still denies does not open."""
    shut = (
        OPEN.replace("name: db", "name: web").replace("{app: db}", "{app: web}").replace("ingress", "egress")
    )
    shut = shut.replace("fromEndpoints", "toEndpoints")
    both = policies(policies(inputs, OPEN), shut)
    opened = OPEN.replace("{app: api}", "{app: web}")
    assert ("web", "db", "5432/TCP", "deny", "allow") not in rows(diff(both, policies(both, opened)))
    only_db = policies(inputs, OPEN)
    assert ("web", "db", "5432/TCP", "deny", "allow") in rows(diff(only_db, policies(only_db, opened)))


def test_prefixes_of_either_side_are_told_apart(inputs: Inputs) -> None:
    cidr = OPEN.replace("fromEndpoints: [{matchLabels: {app: api}}]", "fromCIDR: [10.0.0.0/8]")
    narrow = cidr.replace("10.0.0.0/8", "10.1.0.0/16")
    before, after = policies(inputs, cidr), policies(inputs, narrow)
    assert rows(diff(before, after)) == {("10.0.0.0/8", "db", "5432/TCP", "allow", "deny")}
    assert rows(diff(after, before)) == {("10.0.0.0/8", "db", "5432/TCP", "deny", "allow")}


def test_groups_may_change(inputs: Inputs) -> None:
    group = (
        "apiVersion: cilium.io/v2\nkind: CiliumCIDRGroup\nmetadata: {name: g}\nspec: {externalCIDRs: [%s]}\n"
    )
    rule = OPEN.replace("fromEndpoints: [{matchLabels: {app: api}}]", "fromCIDRSet: [{cidrGroupRef: g}]")
    before = policies(inputs, f"{rule}---\n{group % '10.0.0.0/8'}")
    answer = diff(before, policies(before, group % "10.0.0.0/8, 192.168.0.0/16"))
    assert rows(answer) == {("192.168.0.0/16", "db", "5432/TCP", "deny", "allow")}


def test_what_is_needed_is_a_change_too(inputs: Inputs) -> None:
    closed = policies(inputs, OPEN)
    strict = OPEN + "      authentication: {mode: required}\n"
    found = rows(diff(closed, policies(closed, strict)))
    assert found == {("api+api2", "db", "5432/TCP", "allow", "allow, authentication required")}


def test_names_of_policies_and_bad_files(inputs: Inputs) -> None:
    closed = policies(inputs, OPEN)

    def run(files: list[tuple[str, str]], delete: list[str]) -> Any:
        return worker.run("diff", closed, files=files, delete=delete, only=False)

    assert run([], ["prod/db"])["policies"]["deleted"] == run([], ["db"])["policies"]["deleted"]
    with pytest.raises(NotFoundError, match="no policy 'dp'"):
        run([], ["dp"])
    with pytest.raises(RequestError, match="no policy in these files"):
        run([("x.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: s}\n")], [])
    with pytest.raises(ResourceError, match=r"bad.yaml:6.*unknown field 'ingres'"):
        run([("bad.yaml", OPEN.replace("ingress:", "ingres:"))], [])
    assert run([("x.yaml", f"{OPEN}---\napiVersion: v1\nkind: Service\nmetadata: {{name: s}}\n")], [])[
        "skipped"
    ] == ["Service s"]


def test_a_long_answer_is_bounded_and_what_is_left_out_is_counted(tmp_path: Path) -> None:
    many = workloads(tmp_path, "".join(f"- {{name: w{n}, labels: {{app: w{n}}}}}\n" for n in range(90)))
    shut = "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: shut}\nspec: {endpointSelector: {}, ingress: [{}]}\n"
    answer = diff(many, policies(many, shut))
    assert answer["pairs"] == 90 * (90 + 9)  # from all workloads and all reserved ones but the host
    assert len(answer["changes"]) == MAX_ROWS
    assert len(encode(answer)) < MAX_ANSWER / 2


# Against the engine, port by port


def inputs_of_case(case: dict[str, Any]) -> Inputs:
    world = CaseWorld(case)
    universe = world.engine.universe
    numbers = {number: labels.texts for number in universe.numbers() if (labels := universe.labels(number))}
    found = [
        Workload(
            endpoint=endpoint,
            name=f"x/{endpoint}",
            identity=_identity(numbers, subject.labels),
            subject=subject,
        )
        for endpoint, subject in world.engine.subjects.items()
        if endpoint >= 256
    ]
    return Inputs(
        settings=world.engine.settings,
        policies={one.key: one for one in world.policies},
        groups={one.name: one for one in world.groups},
        identities=numbers,
        workloads=tuple(found),
    )


def _identity(numbers: dict[int, tuple[str, ...]], labels: tuple[str, ...]) -> int:
    return next(number for number, texts in numbers.items() if texts == tuple(sorted(labels)))


def verdict(rehearsed: Rehearsed, ends: list[tuple[int, int]], protocol: int, port: int) -> Any:
    (source, source_identity), (destination, destination_identity) = ends
    egress = rehearsed.engine.verdict(source, Direction.EGRESS, destination_identity, protocol, port)
    ingress = rehearsed.engine.verdict(destination, Direction.INGRESS, source_identity, protocol, port)
    return outcome(egress, ingress)


def test_against_the_engine_itself() -> None:
    """Random cases, one policy taken away: every pair at every interesting port changes exactly as the table says."""
    chosen = random.Random(3)
    cases = [case for case in read(CORPUS / "random.jsonl.gz") if len(case["policies"]) > 1]
    compared = changed = 0
    for case in chosen.sample(cases, 25):
        before = inputs_of_case(case)
        if not before.policies:
            continue
        after = before.changed(deleted=[chosen.choice(sorted(before.policies))])
        answer = diff(before, after)
        told = {
            (_end(row["source"]), _end(row["destination"]), row["ports"]): (row["before"], row["after"])
            for row in answer["changes"]
        }
        old, new = rehearse(before, after), rehearse(after, before)
        ends = {one.endpoint: one.identity for one in before.workloads}
        pairs = [(0, number) for number in old.labels if number not in ends.values()] + list(ends.items())
        for _ in range(150):
            pair = [chosen.choice(pairs), chosen.choice(list(ends.items()))]
            chosen.shuffle(pair)
            protocol, port = (
                chosen.choice([1, 6, 17, 58, 132, 47]),
                chosen.choice([0, 1, 8, 22, 53, 80, 443, 8080, 65535]),
            )
            was, will = verdict(old, pair, protocol, port), verdict(new, pair, protocol, port)
            names = [_name(end, before) for end in pair]
            found = [
                texts for (source, destination, ports), texts in told.items()
                if names[0] in source and names[1] in destination and _holds(ports, protocol, port)
            ]  # fmt: skip
            assert found == ([(was.text, will.text)] if was.differs(will) else []), (
                case["name"],
                pair,
                protocol,
                port,
            )
            compared, changed = compared + 1, changed + was.differs(will)
    assert compared > 3000
    assert changed > 100


def _end(end: dict[str, Any]) -> tuple[str, ...]:
    return tuple(end["workloads"]) or (f"identity {end['identity']}",)


def _name(end: tuple[int, int], inputs: Inputs) -> str:
    return f"x/{end[0]}" if end[0] else f"identity {end[1]}"


def _holds(ports: str, protocol: int, port: int) -> bool:
    """Whether the text of a row speaks of a port."""
    if ports.startswith("any"):
        return _protocol(protocol) not in ports.removeprefix("any but ").split(", ")
    span, _, name = ports.rpartition("/")
    first, _, last = span.partition("-")
    return name == _protocol(protocol) and (span == "all" or int(first) <= port <= int(last or first))


def _protocol(number: int) -> str:
    return Protocol(number).name if number in set(Protocol) else "?"
