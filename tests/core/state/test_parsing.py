"""The kit of parse functions: typed values, every error with its place, and all of them at once."""

from __future__ import annotations

import ipaddress
import re

import pytest
from attrs import frozen

from axoneme.core.errors import AxonemeError, ConfigError, ResourceError, Where
from axoneme.core.state.parsing import Fields, ResourceErrors, describe, flatten, nearest
from axoneme.core.state.yamlio import load


def fields(text: str) -> Fields:
    return Fields(load(text, "a.yaml")[0])


@frozen
class Port:
    number: int
    protocol: str


def port(each: Fields) -> Port:
    return Port(
        each.number("port", minimum=1, maximum=65535),
        each.text("protocol", "ANY", choices=("TCP", "UDP", "ANY")),
    )


def test_a_structure_is_read() -> None:
    top = fields(
        """
        name: web
        ports: [{port: 80, protocol: TCP}, {port: 53}]
        cidrs: [10.0.0.0/8, "fd00::/8"]
        first: {port: 1}
        labels: {a: b}
        on: null
        "on!": true
        free: {x: [1]}
        groups: {a: {port: 1}, b: {port: 2}}
        """.replace("on: null", "off!: null")
    )
    assert top.text("name") == "web"
    assert top.each("ports", port) == (Port(80, "TCP"), Port(53, "ANY"))
    assert top.takes("cidrs", ipaddress.ip_network)[1].version == 6
    assert top.read("first", port) == Port(1, "ANY")
    assert top.labels("labels") == {"a": "b"}
    assert top.flag("on!") is True
    assert top.flag("off!", False) is False
    assert top.raw("free") == {"x": [1]}
    assert {name: port(each) for name, each in top.entries("groups").items()} == {
        "a": Port(1, "ANY"),
        "b": Port(2, "ANY"),
    }
    top.finish()


def test_defaults_stand_for_absent_and_null_fields() -> None:
    top = fields("a: null\nb: 1")
    assert top.text("a", None) is None
    assert top.number("x", 7) == 7
    assert top.flag("x", True) is True
    assert top.each("x", port, ()) == ()
    assert top.texts("x", ()) == ()
    assert top.labels("x", {}) == {}
    assert top.fields("x", None) is None
    assert top.read("x", port, None) is None
    assert top.entries("x", {}) == {}
    assert top.take("x", int, None) is None
    assert "b" in top
    assert "a" not in top
    assert top.names() == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "read", "message"),
    [
        (
            "a: 1",
            lambda f: f.text("a"),
            r"a.yaml:1 \(a\): expected text, found a whole number 1 \(put it in quotes\)",
        ),
        ("a: on", lambda f: f.text("a"), "expected text, found the word true .*quotes"),
        ("a: [1]", lambda f: f.text("a"), "expected text, found a list$"),
        ("a: x", lambda f: f.number("a"), "expected a whole number, found text 'x'"),
        ("a: true", lambda f: f.number("a"), "expected a whole number, found the word true"),
        ("a: 1.5", lambda f: f.number("a"), "expected a whole number, found a number 1.5"),
        ("a: 0", lambda f: f.number("a", minimum=1, maximum=9), "0 is not a number from 1 up to 9"),
        ("a: 'yes'", lambda f: f.flag("a"), "expected true or false, found text 'yes'"),
        (
            "a: tcp",
            lambda f: f.text("a", choices=("TCP", "UDP")),
            "'tcp' is not possible here .did you mean TCP",
        ),
        ("a: x", lambda f: f.text("a", choices=("TCP", "UDP")), "it can be TCP, UDP"),
        ("a: X", lambda f: f.text("a", pattern=re.compile("[a-z]")), r"'X' does not match \[a-z\]"),
        ("a: xxx", lambda f: f.text("a", longest=2), "3 characters, the limit is 2"),
        ("a: {b: c}", lambda f: f.each("a", port), "expected a list, found a mapping"),
        ("a: x", lambda f: f.fields("a"), "expected a mapping, found text 'x'"),
        (
            "a: 10.0.0.1/8",
            lambda f: f.take("a", ipaddress.ip_network),
            r"a.yaml:1 \(a\): 10.0.0.1/8 has host bits set",
        ),
        ("toPort: x", lambda f: f.each("toPorts", port), "'toPorts' is missing .is 'toPort' meant"),
        ("b: x", lambda f: f.text("a"), "the field 'a' is missing$"),
        ("{}", lambda f: f.one_of("a", "b"), "exactly one of a, b must be there, here is none"),
        ("a: 1\nb: 2", lambda f: f.one_of("a", "b"), r"a.yaml:2 \(b\): exactly one of .* here is a and b"),
        ("[1]", lambda f: f, "expected a mapping, found a list"),
    ],
)
def test_errors_say_what_and_where(text: str, read: object, message: str) -> None:
    with pytest.raises(ResourceError, match=message):
        read(fields(text))  # type: ignore[operator]


def test_all_errors_come_together() -> None:
    top = fields(
        """
        ports:
        - port: 0
          protcol: TCP
        - 7
        - port: 80
          protcol: TCP
        - port: x
        cidrs: [1, nonsense, 10.0.0.0/8]
        labels: {a: 1, b: x, c: yes}
        spce: {}
        """
    )
    top.each("ports", port)
    top.takes("cidrs", ipaddress.ip_network)
    assert top.labels("labels") == {"b": "x"}
    top.ignore("spec")
    with pytest.raises(ResourceErrors) as caught:
        top.finish()
    found = [(str(error.where), error.message, error.hint) for error in flatten(caught.value)]
    assert [(place.partition(" ")[2], message.partition(",")[0]) for place, message, _ in found] == [
        ("(ports[0].port)", "0 is not a number from 1 up to 65535"),
        ("(ports[1])", "expected a mapping"),
        ("(ports[3].port)", "expected a whole number"),
        ("(cidrs[0])", "expected text"),
        ("(cidrs[1])", "'nonsense' does not appear to be an IPv4 or IPv6 network"),
        ("(labels.a)", "expected text"),
        ("(labels.c)", "expected text"),
        ("(spce)", "unknown field 'spce'"),
        ("(ports[2].protcol)", "unknown field 'protcol'"),
    ]
    assert found[-1][2] == "did you mean protocol?"
    assert found[-2][2] == "did you mean spec?"
    assert "(and 8 more)" in str(caught.value)


def test_unread_fields_are_taken_or_ignored() -> None:
    top = fields("a: 1\nb: 2\nc: 3")
    top.raw("a")
    top.ignore("c")
    assert top.unread() == {"b": 2}
    top.finish()


def test_noted_errors_do_not_end_the_reading() -> None:
    top = fields("a: 1")
    top.note("odd", "a", hint="even is better")
    assert top.raw("a") == 1
    with pytest.raises(ResourceErrors, match=r"a.yaml:1 \(a\): odd \(even is better\)"):
        top.finish()


def test_an_error_inside_ends_only_its_element() -> None:
    def rule(each: Fields) -> tuple[Port, ...]:
        each.text("name")
        return each.each("ports", port)

    top = fields("rules:\n- name: a\n  ports: [{port: 1}, {port: 0}]\n- ports: []\n- name: c\n  ports: []\n")
    assert top.each("rules", rule) == ((Port(1, "ANY"),), ())
    assert [str(error.where) for error in top.report] == [
        "a.yaml:3 (rules[0].ports[1].port)",
        "a.yaml:4 (rules[1].name)",
    ]


def test_mistakes_of_parse_functions_are_not_swallowed() -> None:
    def broken(each: Fields) -> int:
        raise KeyError("x")

    with pytest.raises(KeyError):
        fields("a: [{}]").each("a", broken)


def test_groups_are_flattened() -> None:
    where = Where("x.yaml", 3)
    one, two = (
        ResourceError("one", where=where),
        ResourceErrors([ResourceError("two"), ResourceError("three")]),
    )
    group = ExceptionGroup(
        "all", [one, ExceptionGroup("inner", [two, ConfigError("four", where=where)]), KeyError("k")]
    )
    found = flatten(group)
    assert [error.message for error in found[:4]] == ["one", "two", "three", "four"]
    assert found[3].where == where
    assert "KeyError" in found[4].message
    assert isinstance(two, AxonemeError)


def test_names_and_values_for_people() -> None:
    assert nearest("endpointselector", ["endpointSelector", "ingress"]) == "did you mean endpointSelector?"
    assert nearest("zzz", ["endpointSelector"]) is None
    assert describe("x" * 100).endswith("...")
    assert describe(None) == "nothing"
