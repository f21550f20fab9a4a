"""YAML is read as Kubernetes reads it, with places, and refuses the rest with a `ResourceError`, quickly."""

from __future__ import annotations

import contextlib
import time

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from axoneme.core.errors import ResourceError, Where
from axoneme.core.state.document import MAX_BYTES
from axoneme.core.state.yamlio import load


def value(text: str | bytes, file: str = "a.yaml") -> object:
    (document,) = load(text, file)
    return document.value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", "a"),
        ("yes", True),
        ("Off", False),
        ("y", "y"),
        ("'yes'", "yes"),
        ("!!str yes", "yes"),
        ("! 5", "5"),
        ("!!int '5'", 5),
        ("!!float 5", 5),
        ("0x1F", 31),
        ("0b101", 5),
        ("010", 8),
        ("0o10", 8),
        ("1_000", 1000),
        ("-7", -7),
        ("+7", 7),
        ("08", "08"),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("", None),
        ("~", None),
        ("12:30:45", "12:30:45"),
        ("2024-01-31", "2024-01-31"),
        ("1.2.3.4", "1.2.3.4"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("18446744073709551615", 2**64 - 1),
        ("|\n  a\n  b\n", "a\nb\n"),
        ("9" * 64 + "x", "9" * 64 + "x"),
    ],
)
def test_scalars(text: str, expected: object) -> None:
    found = value(f"v: {text}")["v"]  # type: ignore[index]
    assert found == expected
    assert type(found) is type(expected)


def test_documents_that_are_empty_are_none() -> None:
    assert (
        load("", "a.yaml")
        == load("# only\n# comments\n", "a.yaml")
        == load("---\n---\n...\n", "a.yaml")
        == []
    )
    assert [d.value for d in load("---\na: 1\n---\n# nothing\n---\nb: 2\n", "a.yaml")] == [{"a": 1}, {"b": 2}]


def test_byte_order_mark_is_skipped() -> None:
    assert value(b"\xef\xbb\xbfa: 1") == {"a": 1}


def test_every_field_has_its_place() -> None:
    text = (
        "# a comment\n---\nspec:\n  ports:\n    - port: 80\n      name: web\n    - {port: 443}\n  other: x\n"
    )
    (document,) = load(text, "a.yaml")

    def place(*path: str | int) -> tuple[int | None, int | None, str | None]:
        where = document.position(path)
        return where.line, where.column, where.field

    assert place() == (3, 1, None)
    assert place("spec", "ports", 0, "name") == (6, 7, "spec.ports[0].name")
    assert place("spec", "ports", 1, "port") == (7, 8, "spec.ports[1].port")
    assert place("spec", "other") == (8, 3, "spec.other")
    assert place("spec", "missing", "deep") == (3, 1, "spec.missing.deep")
    assert place("spec", "ports", 9) == (4, 3, "spec.ports[9]")
    assert document.position(("k8s:app/x", "b")).field == "['k8s:app/x'].b"


def test_places_of_a_second_document_count_from_the_file() -> None:
    _, second = load("a: 1\n---\nb: 2\n", "a.yaml")
    assert str(second.position(("b",))) == "a.yaml:3 (b)"


def test_part_of_a_document_keeps_places_and_path() -> None:
    (document,) = load("items:\n- a: 1\n- b:\n    c: 2\n", "a.yaml")
    part = document.within(("items", 1))
    assert part.value == {"b": {"c": 2}}
    assert str(part.position(("b", "c"))) == "a.yaml:4 (items[1].b.c)"
    assert part.position().line == 3


def test_aliases_and_merges() -> None:
    text = "base: &base {x: 1, y: 2}\nmore: &more {z: 3, x: 9}\nboth:\n  <<: [*base, *more]\n  y: 5\nlist: [*base]\nquoted: {'<<': 1}\nname: &n v\n*n : w\n"
    found = value(text)
    assert found["both"] == {"x": 1, "y": 5, "z": 3}  # type: ignore[index]
    assert found["list"] == [{"x": 1, "y": 2}]  # type: ignore[index]
    assert found["quoted"] == {"<<": 1}
    assert found["v"] == "w"
    assert load(text, "a.yaml")[0].position(("both", "z")).line == 2


def test_numbers_as_keys_are_text() -> None:
    assert value("8080: web\n0x10: hex") == {"8080": "web", "0x10": "hex"}


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(10)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", r"a.yaml:3: the key 'a' is here twice, first in line 1"),
        ("a: {b: 1, b: 2}", "the key 'b' is here twice"),
        ("a: [1, 2", r"a.yaml:1: malformed YAML: .*flow sequence"),
        ("a: b: c", "malformed YAML: mapping values"),
        ("a:\n\t- b", r"a.yaml:2: malformed YAML"),
        (b"a: 1\nb: \xff\n", r"a.yaml:2: not UTF-8: byte 0xff"),
        ("a: \x07", "malformed YAML: control characters"),
        ("x\n" * 3 + "a: \x07", r"a.yaml:4: malformed"),
        ("on: push", "a key must be text.*quotes"),
        ("? [a]\n: b", "a key must be text"),
        ("&a [x]: 1", "a key must be text"),
        ("a: !!python/object:os.system x", "the tag .*os.system is not supported"),
        ("a: !thing {b: 1}", "the tag !thing is not supported"),
        ("a: !!int x", "the tag .*int is not supported, or not for 'x'"),
        ("a: .inf", "not a number that JSON can hold"),
        ("a: 1e999", "not a number that JSON can hold"),
        ("a: 18446744073709551616", "beyond 64 bits.*quotes"),
        ("a: 1" + "0" * 5000, "too many digits"),
        ("a: *nobody", "no anchor &nobody"),
        ("a: &a [*a]", "contains itself"),
        ("<<: 5", "<< merges mappings only"),
        ("a: &m {x: 1}\n<<: [*m, 3]", "<< merges mappings only"),
        (BOMB, "more than 100,000 values, aliases expanded"),
        (
            "[" * 100_000,
            "nested deeper than 64|exceeded maximum nesting depth",
        ),  # since PyYAML 6.0.4 it has a limit, too
        ("- " * 100_000, "nested deeper than 64"),
        ("a: 1\n" * 1_000_000, "the limit is 4,194,304.*split"),
        ('a: "\\ud800"', "malformed YAML"),
        ("\ud800", "not Unicode text"),
    ],
    ids=lambda text: repr(text)[:30],
)
def test_what_is_refused(text: str | bytes, message: str) -> None:
    begin = time.process_time()
    with pytest.raises(ResourceError, match=message):
        load(text, "a.yaml")
    assert time.process_time() - begin < 1


def test_largest_files_take_less_than_a_second() -> None:
    for text in (
        "- x\n" * 99_000,
        "# c\n" * (MAX_BYTES // 4),
        "a: " + "x" * (MAX_BYTES - 3),
        "a,\n" * 1_000_000,
    ):
        begin = time.process_time()
        load(text, "a.yaml")
        assert time.process_time() - begin < 1


pieces = st.sampled_from(
    [
        *"{}[],:-?&*!|>'\"%@`# \n\t\\~<=ab01.",
        "\n  ",
        "- ",
        ": ",
        "&a ",
        "*a",
        "<<: ",
        "!!int ",
        "---\n",
        "...\n",
        "\\ud800",
        "\x00",
        "\xff",
        "'k': ",
    ]
)


@settings(max_examples=400, deadline=None)
@given(
    st.one_of(st.lists(pieces, max_size=60).map("".join), st.text(max_size=60)),
    st.sampled_from(["a.yaml", "a.json"]),
)
def test_fuzzed_text_raises_nothing_but_resource_errors(text: str, file: str) -> None:
    where: Where | None = Where(file)
    begin = time.process_time()
    try:
        for document in load(text, file):
            document.position(("a", 0, "b"))
    except ResourceError as error:
        where = error.where
    assert where is not None
    assert where.file == file
    assert time.process_time() - begin < 1


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80))
def test_fuzzed_bytes_raise_nothing_but_resource_errors(content: bytes) -> None:
    for file in ("a.yaml", "a.json"):
        with contextlib.suppress(ResourceError):
            load(content, file)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abc<:' ", min_size=1), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.dictionaries(st.text("xyz", min_size=1), plain, min_size=1))
def test_what_was_dumped_is_read_back(content: dict) -> None:
    # Quoted, since what needs quotes differs a little between the YAML that PyYAML writes and the one that is read.
    text = yaml.safe_dump(content, allow_unicode=True, default_flow_style=None, default_style='"')
    assert value(text) == content
