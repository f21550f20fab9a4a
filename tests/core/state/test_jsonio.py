"""JSON is strict, and has places as YAML has."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.core.errors import ResourceError
from axoneme.core.state.yamlio import load

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def paths(value: object, base: tuple = ()) -> list[tuple]:
    if isinstance(value, dict):
        return [base, *(path for key in value for path in paths(value[key], (*base, key)))]
    if isinstance(value, list):
        return [base, *(path for i in range(len(value)) for path in paths(value[i], (*base, i)))]
    return [base]


@given(st.dictionaries(st.text(), plain, min_size=1), st.sampled_from([None, 1]), st.booleans())
def test_values_and_places(content: dict, indent: int | None, ascii_only: bool) -> None:
    try:
        text = json.dumps(content, indent=indent, ensure_ascii=ascii_only)
        text.encode()
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return
    (document,) = load(text, "a.json")
    assert document.value == content
    lines = text.split("\n")
    for path in paths(content)[1:]:
        where = document.position(path)
        assert where.line is not None
        assert where.column is not None
        rest = lines[where.line - 1][where.column - 1 :]
        if isinstance(path[-1], str):
            assert rest.startswith(json.dumps(path[-1], ensure_ascii=ascii_only))


def test_nothing_is_no_document() -> None:
    assert load(" \n", "a.json") == load("null", "a.json") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": }', r"a.json:1: malformed JSON: Expecting value"),
        ('{"a": 1} x', "malformed JSON: Extra data"),
        ("{'a': 1}", "malformed JSON"),
        (
            '{"a": 1,\n "b": {"x": 1,\n  "x": [1, {}, null]}}',
            r"a.json:3: the key 'x' is here twice, first in line 2",
        ),
        ("[NaN]", "NaN is not a number that JSON can hold"),
        ("[1e999]", "1e999 is not a number"),
        ("[1" + "0" * 5000 + "]", "beyond 64 bits"),
        ("[" * 200_000, "nested deeper than 64"),
        ("[" * 70 + "]" * 70, "nested deeper than 64"),
        ('{"a":' * 70 + '{"a":1,"a":2}' + "}" * 70, "nested deeper than 64"),
        ("[" + "1," * 100_000 + "1]", "more than 100,000 values"),
        ('["\\ud800"]', "surrogate"),
    ],
    ids=lambda text: repr(text)[:30],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(ResourceError, match=message):
        load(text, "a.json")


def test_surrogate_pairs_are_one_character() -> None:
    assert load('["\\ud83d\\ude00"]', "a.json")[0].value == ["\U0001f600"]
