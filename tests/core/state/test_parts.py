"""The quick way to read a file of objects gives what the thorough one gives, or says that it has doubts."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from axoneme.core.errors import ResourceError
from axoneme.core.records import ResourceKind
from axoneme.core.state import folder as folder_module
from axoneme.core.state import yamlio
from axoneme.core.state.document import Document, DoubtError, Known, Written
from axoneme.core.state.folder import Folder
from axoneme.core.state.parts import parts
from axoneme.core.state.resources import RESOURCE_FILES, RESOURCES, Kinds, Resource, expand, read_resource
from axoneme.core.state.table import State
from axoneme.core.state.yamlio import load

WIDGET = ResourceKind(
    api_version="v1",
    kind="Widget",
    namespaced=True,
    parse=lambda envelope: envelope.fields.fields("spec").number("size", minimum=0),
)
KINDS = Kinds([WIDGET])


def thorough(text: str, file: str) -> list[Document] | None:
    try:
        return [part for document in load(text.encode(), file) for part in expand(document)]
    except ResourceError:
        return None


def quick(text: str, file: str, known: Known | None = None) -> list[Any] | None:
    try:
        return list(parts(text.encode(), file, known or {}))
    except DoubtError:
        return None


def paths(value: object, base: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    yield base
    inside = value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ())
    for key, inner in inside:
        yield from paths(inner, (*base, key))


def told(document: Document) -> Any:
    """All that a reader of it could learn."""
    places = [document.position(path) for path in paths(document.value)]
    missing = document.position(("nobody", "there", 5))
    return document.file, json.dumps(document.value), document.base, places, missing


def agree(text: str, file: str) -> None:
    mine, other = quick(text, file), thorough(text, file)
    if mine is None:
        return
    assert other is not None, "the thorough way refuses it"
    assert [told(one) for one in mine] == [told(one) for one in other]
    for one in mine:
        if one.written is not None and isinstance(one.value, dict):
            assert json.dumps(dict(one.written)) == json.dumps(one.value)
    for one, same in zip(mine, other, strict=True):
        assert verdict(one) == verdict(same)


def verdict(document: Document) -> Any:
    try:
        read = read_resource(document, KINDS, "test")
    except ResourceError as error:
        return str(error)
    return read


words = st.sampled_from(
    ["a", "yes", "-1", "1.50", "::1", "x: y", "", "~", "ü", "a\nb", "# c", "\u2028", "--- x", '"', "\\"]
)
scalars = (
    st.none() | st.booleans() | st.integers(-9, 99) | st.floats(-9, 9).map(lambda x: round(x, 2)) | words
)
plain = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
objects = st.fixed_dictionaries(
    {"apiVersion": st.just("v1"), "kind": st.sampled_from(["Widget", "Wigdet", "List"])},
    optional={
        "metadata": st.fixed_dictionaries(
            {"name": st.sampled_from(["a", "b", "C", 5])}, optional={"labels": plain}
        ),
        "spec": st.fixed_dictionaries({"size": scalars}, optional={"siez": scalars}),
        "items": plain,
        "other": plain,
    },
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(objects | plain, max_size=4),
    st.sampled_from(["List", "Lisp", 5]),
    st.sampled_from([None, 0, 2, "\t"]),
    st.booleans(),
    st.permutations(["apiVersion", "kind", "metadata", "items"]),
)
def test_lists_of_json(items: list[Any], kind: Any, indent: Any, ascii_only: bool, order: list[str]) -> None:
    top = {"apiVersion": "v1", "kind": kind, "metadata": {"resourceVersion": ""}, "items": items}
    text = json.dumps({key: top[key] for key in order}, indent=indent, ensure_ascii=ascii_only)
    agree(text, "a.json")
    agree("\n  " + text.replace('{"apiVersion', '{ "apiVersion') + " \n", "a.json")


@settings(max_examples=200, deadline=None)
@given(
    st.lists(objects, max_size=4),
    st.sampled_from(["---\n", "--- # next\n", "\n---\n\n# a comment\n", "...\n---\n"]),
    st.sampled_from([None, False, True]),
)
def test_documents_of_yaml(documents: list[Any], between: str, flow: bool | None) -> None:
    texts = [
        yaml.safe_dump(one, allow_unicode=True, default_flow_style=flow, sort_keys=False) for one in documents
    ]
    agree(between.join(texts), "a.yaml")
    agree(between + between.join(texts), "a.yaml")


@settings(max_examples=400, deadline=None)
@given(
    st.data(),
    st.lists(objects, min_size=1, max_size=3),
    st.sampled_from(["a.json", "a.yaml"]),
)
def test_what_was_damaged(data: st.DataObject, items: list[Any], file: str) -> None:
    """Some characters are put in, or others taken away, anywhere."""
    if file == "a.json":
        text = json.dumps({"kind": "List", "items": items}, ensure_ascii=False)
    else:
        text = "---\n".join(yaml.safe_dump(one, allow_unicode=True, sort_keys=False) for one in items)
    at = data.draw(st.integers(0, len(text)))
    gone = data.draw(st.integers(0, 3))
    put = data.draw(
        st.sampled_from(
            [
                "",
                '"',
                ",",
                "{",
                "}",
                "[",
                "]",
                "\n",
                ":",
                " ",
                "-",
                "&a ",
                "*a",
                "!!str ",
                "#",
                "|\n",
                "1e999",
                '"kind":1,',
                "\x00",
            ]
        )
    )
    agree(text[:at] + put + text[at + gone :], file)


SCALARS = (
    *(
        "",
        "",
        "",
        "x",
        "-1",
        "10.0.0.1",
        "1.5",
        "0x1F",
        "010",
        "1_000",
        "9" * 20,
        "9" * 70,
        "1e999",
        ".5",
        ".",
        "yes",
    ),
    *(
        "null",
        "'q'",
        '"q # [{"',
        "''",
        '"a\\n"',
        "{}",
        "[]",
        "[1]",
        "x:",
        "x:y",
        "fd00::1",
        "::1",
        "x y",
        "x #y",
        "#",
    ),
    *("&a", "*a", "|", "-", "- ", "é", "~", "%", "2024-01-01", "a@b", "=", "x\t", "x ", "+1", "1:30"),
)
lines = st.builds(
    lambda indent, dashes, key, scalar: " " * indent + "- " * dashes + key + scalar,
    st.sampled_from([0, 0, 0, 1, 2, 2, 2, 4]),
    st.sampled_from([0, 0, 0, 1, 1, 2]),
    st.sampled_from(["", "a: ", "b: ", "kind: ", "a:", "yes: ", "a.b/c-d: ", "5: ", "a:x", "a:  "]),
    st.sampled_from(SCALARS),
)


@settings(max_examples=1500, deadline=None)
@given(st.lists(lines, min_size=1, max_size=7), st.sampled_from(["", "---\n", "--- \n", "\n"]))
def test_lines_of_yaml(soup: list[str], before: str) -> None:
    agree(before + "\n".join(soup), "a.yaml")
    agree(before + "kind: x\n" + "\n".join(soup) + "\n", "a.yaml")


def test_plain_lines_are_read_without_libyaml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yamlio, "CParser", None)
    text = "a: 1\nb:\n- c: x\n  d: [] \n-  10.0.0.1\n- - 'x: y'\n  - f:\n      g: yes\n\nh:\n  - \"\"\ni:\n"
    expected = {
        "a": 1,
        "b": [{"c": "x", "d": []}, "10.0.0.1", ["x: y", {"f": {"g": True}}]],
        "h": [""],
        "i": None,
    }
    documents = quick(text + "---\n" + text, "a.yaml") or []
    assert [document.value for document in documents] == [expected, expected]


@pytest.mark.parametrize(
    "text", [" " * 90_000 + "#", "- " * 40_000, "a: " + "b:" * 40_000, "a:" * 40_000, "x" * 90_000]
)
def test_no_line_takes_long(text: str) -> None:
    begin = time.process_time()
    agree(text, "a.yaml")
    assert time.process_time() - begin < 1


@pytest.mark.parametrize(
    "text",
    [
        '{"kind": "List", "items": []}',
        '{"kind": "List", "items": null}',
        '{"kind": "List", "items": {}}',
        '{"kind": "List", "kind": "List", "items": [{}]}',
        '{"kind": "List", "items": [{}], "items": [{}]}',
        '{"kind": "List", "itmes": [], "items": [{}]}',
        '{"kind": "List", "items": [{"a": 1, "a": 2}]}',
        '{"kind": "List", "items": [1e999]}',
        '{"kind": "List", "items": ["\\ud800"]}',
        '{"kind": "List", "items": [' + "[" * 70 + "]" * 70 + "]}",
        '{"kind": "List", "items": [[' + "1," * 100_000 + "1]]}",
        '{"kind": "List", "items": [{}]} x',
        '{"kind": "List", "items": [{}],}',
        '{"kind": "List", "items": [{},]}',
        '{"kind": "List", "items": [{}',
        "[]",
        "",
    ],
)
def test_what_is_doubted(text: str) -> None:
    assert quick(text, "a.json") is None
    agree(text, "a.json")


def test_a_list_may_hold_more_values_than_an_object() -> None:
    one = {"a": list(range(60_000))}
    text = json.dumps({"kind": "List", "items": [one, one]})
    for way in (quick, thorough):
        documents = way(text, "a.json")
        assert documents is not None
        assert [document.value for document in documents] == [one, one]


# What was read before


def widget(name: str, size: int) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Widget", "metadata": {"name": name}, "spec": {"size": size}}


def render(sizes: list[int], file: str) -> str:
    widgets = [widget(f"w{number}", size) for number, size in enumerate(sizes)]
    if file.endswith(".json"):
        return json.dumps({"kind": "List", "items": widgets}, indent=1)
    return "---\n".join(yaml.safe_dump(one) for one in widgets)


@pytest.mark.parametrize("file", ["a.json", "a.yaml"])
def test_of_a_changed_file_only_what_changed_is_read_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    state = State([RESOURCES, RESOURCE_FILES])
    folder = Folder(tmp_path, state, KINDS, "test")
    names: list[str] = []

    def noted(document: Document, *others: Any) -> Any:
        names.append(document.value["metadata"]["name"])
        return read_resource(document, *others)

    monkeypatch.setattr(folder_module, "read_resource", noted)

    def put(sizes: list[int]) -> list[int]:
        names.clear()
        (tmp_path / file).write_text(render(sizes, file))
        folder.take(file, folder.look(file), 0)
        folder.commit()
        return [row.parsed for row in state.table("resources", Resource)]

    assert put([1] * 9) == [1] * 9
    assert len(names) == 9
    before = state.table("resources", Resource).get(("Widget", "default", "w0"))
    assert put([1] * 4 + [2] + [1] * 4) == [1] * 4 + [2] + [1] * 4
    assert names == ["w4"]
    assert state.table("resources", Resource).get(("Widget", "default", "w0")) is before
    assert put([1] * 4 + [-1] + [1] * 4) == [1] * 4 + [2] + [1] * 4  # the last good one stays
    assert put([1] * 4 + [-1] + [3] * 4) == [1] * 4 + [2] + [3] * 4
    assert "w4" in names, "what was wrong is looked at again"
    assert put([1] * 2) == [1] * 2
    folder.rekind(Kinds([evolve(WIDGET, parse=lambda envelope: WIDGET.parse(envelope) + 6)]))
    assert put([1] * 2) == [7] * 2


def test_what_was_written_is_compared_by_what_it_means() -> None:
    def of(text: str) -> Written:
        (document,) = quick('{"kind": "List", "items": [' + text + "]}", "a.json") or ()
        return document.written

    assert of('{"a": 1, "b": [2]}') == of('{"b":[2],"a":1}') == {"a": 1, "b": [2]}
    assert of('{"a": 1}') != of('{"a": true}') != of('{"a": 1.0}')
    assert of('{"a": 1}') != 5
    assert len(of('{"a": 1}')) == 1
    assert of("{}")
