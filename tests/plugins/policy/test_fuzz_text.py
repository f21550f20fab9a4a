"""Files with anything in them: they raise nothing but our own error, and take no time."""

from __future__ import annotations

import json
import random
import time
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import yaml

from axoneme.core.errors import ResourceError
from axoneme.core.state.resources import Kinds, Resource, expand, read_resource
from axoneme.core.state.yamlio import load
from axoneme.plugins.policy.corpus import read
from axoneme.plugins.policy.kinds import resource_kinds

CORPUS = Path(__file__).parents[2] / "conformance" / "policy" / "random.jsonl.gz"
KINDS = Kinds(resource_kinds())
DOCUMENTS, BASES = 6_000, 60

HEAD = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: a, namespace: b}\n"
SPEC = HEAD + "spec:\n  endpointSelector: {}\n"


def taken(text: str | bytes) -> list[Resource]:
    """The objects of a file, valid or not; `ResourceError` is the only way not to be read."""
    content = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    begin = time.process_time()
    found = []
    try:
        for document in load(content, "f.yaml"):
            for part in expand(document):
                found.append(read_resource(part, KINDS, "test").resource)
    except ResourceError as error:
        assert str(error)  # noqa: PT017 - either outcome is right
    assert time.process_time() - begin < 1
    for resource in found:
        assert all(len(str(problem)) < 2_000 for problem in resource.problems)
    return found


TOKENS = (
    "&a [*a]", "*a", "<<: *a", "? ", ": ", "- ", "\t", "[", "]", "{", "}", "'", '"', "|\n", ">-\n", "---\n", "...\n", "%YAML 9.9\n",
    "!!python/object:os.system x", "!!binary aGk=", "!!set {a}", "\x00", "\ufeff", "\u2028", "\u202e", "\u0085", "e\u0301", "İ", "ß",
    "٣", "\U0001d7d9", "\U0001f600", "9" * 60, "0x50", "1e999", ".inf", ".nan", "~", "yes", "2001-12-14", "10.0.0.0/999", "::/0%eth0",
    "(" * 40, "a{9}{9}{9}{9}", "null", "k8s:", "-" * 20, "*" * 20, "\\u0000", "#",
)  # fmt: skip

WORDS = (
    "ingress", "egress", "ingressDeny", "fromEndpoints", "toEndpoints", "fromEntities", "matchLabels", "matchExpressions", "TCP", "ANY",
    "80", "443", "0", "65536", "In", "Exists", "spec", "specs", "cidr", "ports", "port", "world", "blue", "10.0.0.0/8", "null", "true",
)  # fmt: skip


def mutated(text: str, chance: random.Random) -> str:
    """The text with one to three things changed: characters, tokens, parts of it, or whole lines."""
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(text) + 1)
        lines = text.split("\n")
        match chance.randrange(7):
            case 0:
                text = text[:at] + text[at + chance.randint(1, 6) :]
            case 1:
                text = text[:at] + chance.choice(TOKENS) + text[at:]
            case 2:
                text = text[:at] + text[at : at + chance.randint(1, 200)] + text[at:]
            case 3:
                text = (
                    text[:at] + chr(chance.choice((chance.randrange(32, 0x3000), 0x1F600))) + text[at + 1 :]
                )
            case 4:
                text = text.replace(*(chance.choice(WORDS) for _ in range(2)))
            case 5:
                lines.insert(chance.randrange(len(lines)), chance.choice(lines))
                text = "\n".join(lines)
            case _:
                del lines[chance.randrange(len(lines))]
                text = "\n".join(lines)
    return text


def test_thousands_of_mutated_documents_raise_nothing_else() -> None:
    chance = random.Random(20)
    objects = [value for case in islice(read(CORPUS), BASES) for value in case["policies"]]
    bases = [yaml.safe_dump(value) if index % 2 else json.dumps(value) for index, value in enumerate(objects)]
    accepted = sum(
        any(one.in_effect for one in taken(mutated(chance.choice(bases), chance))) for _ in range(DOCUMENTS)
    )
    assert DOCUMENTS * 0.03 < accepted < DOCUMENTS * 0.9


def rules(rule: str, count: int = 1) -> str:
    return SPEC + "  ingress:\n" + f"  - {rule}\n" * count


def http(path: str) -> str:
    return rules(
        f"toPorts: [{{ports: [{{port: '80', protocol: TCP}}], rules: {{http: [{{path: '{path}'}}]}}}}]"
    )


MONSTERS = {
    "deep lists": "[" * 100_000,
    "deep mappings": "{a: " * 50_000,
    "deep blocks": "".join(" " * depth + "a:\n" for depth in range(1_500)),
    "alias bomb": "a: &a [1,1,1,1,1,1,1,1,1]\n"
    + "".join(f"b{n}: &b{n} [{','.join([f'*b{n - 1}' if n else '*a'] * 9)}]\n" for n in range(12)),
    "alias bomb in a rule": HEAD
    + "spec:\n  endpointSelector: {}\n  description: &a [x, x, x, x]\n  labels: &b [*a, *a, *a, *a]\n"
    + "  ingress: [*b, *b, *b, *b]\n",
    "an alias of itself": SPEC + "  ingress: &a [{fromEndpoints: *a}]\n",
    "rules": rules("fromEndpoints: [{matchLabels: {app: x}}]", 6_000),
    "wrong rules": rules("fromEndpoint: []", 15_000),
    "unknown fields": SPEC + "".join(f"  unknown{number}: 1\n" for number in range(20_000)),
    "a long unknown field": SPEC + "  ? " + "e" * 1_000_000 + "\n  : 1\n",
    "a long entity": rules("fromEntities: [" + "w" * 3_000_000 + "]"),
    "entities": rules("fromEntities: [" + "world," * 30_000 + "]"),
    "wrong labels": rules(
        "fromEndpoints: [{matchLabels: {" + ",".join(f"'-{number}': v" for number in range(20_000)) + "}}]"
    ),
    "requirements": rules(
        "fromEndpoints: [{matchExpressions: ["
        + ",".join(f"{{key: a{number}, operator: Exists}}" for number in range(8_000))
        + "]}]"
    ),
    "values": rules(
        "fromEndpoints: [{matchExpressions: [{key: a, operator: In, values: ["
        + ",".join(f"v{number}" for number in range(50_000))
        + "]}]}]"
    ),
    "prefixes": rules("fromCIDR: [" + ",".join(f"10.{n // 256}.{n % 256}.0/24" for n in range(30_000)) + "]"),
    "a long address": rules("fromCIDR: ['" + "1." * 500_000 + "']"),
    "a long port": rules("toPorts: [{ports: [{port: '" + "9" * 500_000 + "'}]}]"),
    "a long port name": rules("toPorts: [{ports: [{port: '" + "a-" * 300_000 + "'}]}]"),
    "a huge number": rules("toPorts: [{ports: [{port: " + "9" * 100_000 + "}]}]"),
    "a nested expression": http("(" * 5_000 + ")" * 5_000),
    "a repeated expression": http("((a{1000}){1000}){1000}" * 20),
    "backslashes": http("\\" * 100_000),
    "documents": "---\n".join(rules("{}") for _ in range(2_000)),
    "specs": HEAD + "specs:\n" + "- {endpointSelector: {}, ingress: [{}]}\n" * 6_000,
    "control characters": SPEC.encode() + b"  \x00\x01\x7f: [\xed\xa0\x80]",
    "another encoding": SPEC.encode("utf-16"),
}


@pytest.mark.parametrize("name", MONSTERS)
def test_a_monster_is_read_or_refused_at_once(name: str) -> None:
    taken(MONSTERS[name])


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({"name": "\u202e\u0000e\u0301"}, id="name"),
        pytest.param({"name": "a", "namespace": "İ"}, id="namespace"),
        pytest.param({"name": "a", "annotations": {"e\u0301": "\U0001f600"}}, id="annotations"),
    ],
)
def test_odd_characters_in_metadata(value: dict[str, Any]) -> None:
    text = json.dumps({**yaml.safe_load(rules("{}")), "metadata": value}, ensure_ascii=False)
    (resource,) = taken(text)
    assert resource.in_effect is ("annotations" in value)


def test_an_address_with_a_zone_is_none() -> None:
    (resource,) = taken(rules("fromCIDR: ['fe80::1%eth0']"))
    assert not resource.in_effect
