from __future__ import annotations

import json

import pytest
import yaml

from axoneme.core.cli.output import Column, emit, styled

ROWS = [
    {"name": "a", "count": 5, "ok": True, "tags": ["x", "y"], "none": None},
    {"name": "longer", "count": 50, "ok": False, "tags": [], "none": None},
]
COLUMNS = (
    Column("name", "name"),
    Column("count", "count", right=True),
    Column("ok", "ok"),
    Column("tags", "tags"),
    Column("none", "none"),
)


def test_a_table_for_other_programs_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    emit(ROWS, "table", COLUMNS)
    assert capsys.readouterr().out.splitlines() == [
        "NAME    COUNT  OK   TAGS  NONE",
        "a           5  yes  x, y  -",
        "longer     50  no   -     -",
    ]


def test_a_table_on_a_terminal_has_colours_unless_nobody_wants_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert styled("ok") != "ok"
    emit([{"state": "failed"}], "table", (Column("state", "state"),))
    assert "\x1b[" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    assert styled("ok") == "ok"


def test_json_and_yaml_keep_the_rows_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    emit(ROWS, "json")
    assert json.loads(capsys.readouterr().out) == ROWS
    emit(ROWS, "yaml")
    assert yaml.safe_load(capsys.readouterr().out) == ROWS


def test_one_row_is_shown_as_lines(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"name": "a", "labels": ["x"], "reason": ""}, "table")
    assert capsys.readouterr().out.splitlines() == ["name    a", 'labels  ["x"]', "reason  -"]


def test_nothing_is_said_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    emit([], "table", COLUMNS, empty="no rows")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "no rows\n")
    emit([], "json")
    assert capsys.readouterr().out == "[]\n"
