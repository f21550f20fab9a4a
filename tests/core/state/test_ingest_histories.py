"""Random histories of a watched folder, against a model and against a fresh scan."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ingest_bench import Bench, widget

FILES = ("a.yaml", "b.yaml", "c.yaml")
contents = st.one_of(
    st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 3)), min_size=1, max_size=3),
    st.sampled_from(["", "[", "# nothing\n"]),
)
operations = st.one_of(
    st.tuples(st.just("replace"), st.sampled_from(FILES), contents),
    st.tuples(st.just("write"), st.sampled_from(FILES), contents),
    st.tuples(st.just("unlink"), st.sampled_from(FILES)),
    st.tuples(st.just("rename"), st.sampled_from(FILES), st.sampled_from(FILES)),
    st.tuples(st.just("wait"), st.floats(0, 3)),
)


def render(content: Any) -> str:
    return content if isinstance(content, str) else "---\n".join(widget(name, size) for name, size in content)


async def apply(bench: Bench, operation: tuple) -> None:
    match operation:
        case ("replace", name, content):
            bench.put(name, render(content))
        case ("write", name, content):
            (bench.path / name).write_text(render(content))
        case ("unlink", name):
            (bench.path / name).unlink(missing_ok=True)
        case ("rename", old, new):
            with contextlib.suppress(FileNotFoundError):
                (bench.path / old).rename(bench.path / new)
        case ("wait", seconds):
            await bench.step(seconds)


def rows(bench: Bench) -> dict[str, Any]:
    files = {row.path: (row.objects, row.problems) for row in bench.state.table("resource_files")}
    return {"objects": {row.key: row for row in bench.resources}, "files": files}


@settings(max_examples=120, deadline=None)
@given(st.lists(operations, max_size=25))
async def test_any_history_ends_as_a_fresh_scan(
    tmp_path_factory: pytest.TempPathFactory, history: list
) -> None:
    path = tmp_path_factory.mktemp("history")
    bench = Bench(path)
    with bench.source.open():
        await bench.step()
        for operation in history:
            await apply(bench, operation)
        for name in FILES:  # what is broken is repaired: till then the past counts
            if (path / name).exists() and "Widget" not in (path / name).read_text():
                bench.put(name, widget("repaired"))
        await bench.step(10)
        fresh = Bench(path)
        with fresh.source.open():
            await fresh.step()
        assert rows(bench) == rows(fresh)


@settings(max_examples=120, deadline=None)
@given(st.lists(operations, max_size=25))
async def test_object_of_a_file_that_stays_is_never_absent(
    tmp_path_factory: pytest.TempPathFactory, history: list
) -> None:
    """Whatever becomes of the files, one of them keeps saying (when it can be read) that there is an `x`."""
    path = tmp_path_factory.mktemp("history")
    bench = Bench(path)
    bench.put("a.yaml", widget("x", 0))
    with bench.source.open():
        await bench.step()
        watch = bench.resources.watch()
        watch.take()
        for operation in history:
            if operation[0] in ("replace", "write") and operation[1] == "a.yaml":
                text = render(operation[2])
                text = (
                    widget("x", 0) + "---\n" + text.replace("name: x", "name: z")
                    if "Widget" in text
                    else text
                )
                (bench.put if operation[0] == "replace" else lambda n, t: (path / n).write_text(t))(
                    "a.yaml", text
                )
            elif "a.yaml" not in operation:
                await apply(bench, operation)
            await bench.source.step()
            assert bench.sizes.get("x") is not None
            if (batch := watch.take()) is not None:
                assert not [
                    change for change in batch.changes if change.kind == "delete" and change.row.name == "x"
                ]
