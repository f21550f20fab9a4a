"""The one way in which commands print: tables for people, JSON or YAML with stable keys for programs."""

from __future__ import annotations

import enum
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

import click
from attrs import frozen

F = TypeVar("F", bound=Callable[..., Any])

_STYLES: Final = {
    "ok": "green", "ready": "green", "enabled": "green", "valid": "green", "forwarded": "green",
    "degraded": "yellow", "unknown": "yellow", "stale": "yellow", "starting": "yellow", "creating": "yellow",
    "failed": "red", "invalid": "red", "dropped": "red", "waiting": "red",
    "available": "dim", "disabled": "dim",
}  # fmt: skip


class Format(enum.StrEnum):
    """WIDE is a table with more columns, at commands whose table is what other programs expect."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


@frozen
class Column:
    """A column of a table: its heading, and how to get its text from a row."""

    heading: str
    read: str | Callable[[Mapping[str, Any]], Any]
    right: bool = False

    def text(self, row: Mapping[str, Any]) -> str:
        value = row.get(self.read) if isinstance(self.read, str) else self.read(row)
        if value is None:
            return "-"
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, (list, tuple)):
            return ", ".join(str(item) for item in value) or "-"
        return str(value)


def output_option(function: F) -> F:
    """`-o table|json|yaml`, as the parameter `output`."""
    formats = [one for one in Format if one is not Format.WIDE]
    return _output(formats, "How to print: a table for people, json or yaml for programs.")(function)


def wide_output_option(function: F) -> F:
    """`-o table|wide|json|yaml`, as the parameter `output`."""
    return _output([*Format], "How to print: a table, a wide one that says more, json or yaml for programs.")(
        function
    )


def _output(formats: Sequence[Format], text: str) -> Callable[[F], F]:
    return click.option(
        "-o",
        "--output",
        type=click.Choice([one.value for one in formats]),
        default=Format.TABLE.value,
        help=text,
    )


def emit(value: Any, output: str, columns: Sequence[Column] = (), *, empty: str = "nothing there") -> None:
    """Prints a list of rows, or one row, in the format that the user chose."""
    if output == Format.JSON:
        click.echo(json.dumps(value, indent=2, ensure_ascii=False))
    elif output == Format.YAML:
        import yaml

        click.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), nl=False)
    elif isinstance(value, Mapping):
        details(value)
    elif not value:
        click.echo(empty, err=True)
    else:
        table(value, columns)


def table(rows: Iterable[Mapping[str, Any]], columns: Sequence[Column]) -> None:
    """A table without frames, which also other programs can cut into columns."""
    cells = [[column.text(row) for column in columns] for row in rows]
    if sys.stdout.isatty():
        _rich_table(cells, columns)
    else:
        _plain_table(cells, columns)


def _plain_table(cells: list[list[str]], columns: Sequence[Column]) -> None:
    """For other programs: no colours, and lines as long as they are."""
    rows = [[column.heading.upper() for column in columns], *cells]
    widths = [max(map(len, texts)) for texts in zip(*rows, strict=True)]
    for row in rows:
        aligned = [
            text.rjust(width) if column.right else text.ljust(width)
            for text, width, column in zip(row, widths, columns, strict=True)
        ]
        click.echo("  ".join(aligned).rstrip())


def _rich_table(cells: list[list[str]], columns: Sequence[Column]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        shown.add_column(column.heading.upper(), justify="right" if column.right else "left", overflow="fold")
    for row in cells:
        shown.add_row(*(Text(text, style=_STYLES.get(text, "")) for text in row))
    Console(highlight=False, no_color=not colored()).print(shown)


def aligned(
    headings: Sequence[str], rows: Iterable[Sequence[str]], *, minimum: int = 5, gap: int = 3
) -> None:
    """A table in the layout of Cilium's commands, which scripts read: headings as they are written, everything to the left, and
    the same on a terminal as elsewhere.

    :param minimum: width of a column, at least.
    :param gap: spaces behind the longest cell of each.
    """
    lines = [headings, *rows]
    widths = [max(minimum, gap + max(map(len, cells))) for cells in zip(*lines, strict=True)]
    for line in lines:
        click.echo("".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def details(value: Mapping[str, Any]) -> None:
    """One row as lines of `key  value`."""
    width = max((len(key) for key in value), default=0)
    for key, inner in value.items():
        shown = json.dumps(inner, ensure_ascii=False) if isinstance(inner, (dict, list)) else inner
        click.echo(f"{key:<{width}}  {'-' if shown in (None, '') else shown}")


def styled(text: str) -> str:
    """A word in the colour of its meaning; plain when nobody looks."""
    style = _STYLES.get(text, "")
    return click.style(text, fg=style) if style not in ("", "dim") and colored() else text


def colored() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ
