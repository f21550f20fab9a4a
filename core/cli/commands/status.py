"""`axoneme status`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from axoneme.core.api.client import NotRunningError
from axoneme.core.cli.output import Column, Format, emit, styled, table, wide_output_option
from axoneme.core.cli.session import Session
from axoneme.core.errors import AxonemeError

_POLL = 0.1

_PARTS = (
    Column("part", "part"),
    Column("kind", "kind"),
    Column("level", "level"),
    Column("restarts", "restarts", right=True),
    Column("reason", lambda row: row["reason"] or None),
)
_PLUGINS = (
    Column("plugin", "part"),
    Column("level", "level"),
    Column("services", "services", right=True),
    Column("checks", "checks", right=True),
    Column("restarts", "restarts", right=True),
    Column("reason", "reason"),
)


@click.command()
@wide_output_option
@click.option("--brief", is_flag=True, help="One line.")
@click.option("--wait", is_flag=True, help="Wait until all is well.")
@click.option("--timeout", type=float, default=60.0, show_default=True, help="Seconds that --wait waits.")
@click.pass_obj
def command(session: Session, output: str, brief: bool, wait: bool, timeout: float) -> int:
    """Show how the agent and its parts are. The exit code is 1 unless all is well, 3 when no agent runs.

    The table has a line for each plugin, and below it one for each of its parts that has something to say; `-o wide` has all
    parts.
    """
    status = _wait(session, timeout) if wait else session.call("status")
    if brief:
        click.echo(_line(status))
    elif output not in (Format.TABLE, Format.WIDE):
        emit(status, output)
    else:
        _show(status, wide=output == Format.WIDE)
    return 0 if status["ok"] else 1


def _wait(session: Session, timeout: float) -> dict[str, Any]:
    """The status when all is well, or the last one when time is up."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            status: dict[str, Any] = session.call("status")
            if status["ok"] or time.monotonic() > deadline:
                return status
        except (NotRunningError, AxonemeError) as error:
            starting = isinstance(error, NotRunningError) or "starting" in error.message
            if not starting or time.monotonic() > deadline:
                raise
        time.sleep(_POLL)


def _line(status: dict[str, Any]) -> str:
    bad = [row for row in (*status["services"], *status["checks"]) if row["level"] != "ok"]
    reasons = "; ".join(f"{row['plugin']}: {row['reason']}" for row in bad)
    return f"{status['level']}: {reasons}" if reasons else str(status["level"])


def _show(status: dict[str, Any], *, wide: bool) -> None:
    agent, counts = status["agent"], status["counts"]
    click.echo(
        f"{agent['name']} {agent['version']} on {agent['node']}, process {agent['pid']}: {styled(status['level'])}"
    )
    click.echo(
        f"up {_duration(agent['uptime_seconds'])}, generation {agent['generation']}; "
        + ", ".join(f"{number} {name}" for name, number in counts.items())
    )
    rows = [
        {"part": f"{row['plugin']}.{row['service']}", "kind": "service", **row} for row in status["services"]
    ] + [
        {"part": f"{row['plugin']}.{row['check']}", "kind": "check", "restarts": None, **row}
        for row in status["checks"]
    ]
    click.echo()
    table(rows if wide else list(_by_plugin(rows)), _PARTS if wide else _PLUGINS)


def _by_plugin(rows: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """A line for each plugin, the core first; what of it is not well, or has a remark, has one of its own."""
    plugins: dict[str, list[Mapping[str, Any]]] = {"core": []}
    for row in rows:
        plugins.setdefault(row["plugin"], []).append(row)
    for plugin, parts in plugins.items():
        told = [row for row in parts if row["reason"] or row["level"] != "ok"]
        kinds = Counter(row["kind"] for row in parts)
        yield {
            "part": plugin,
            "level": next((row["level"] for row in told if row["level"] != "ok"), "ok"),
            "services": kinds["service"],
            "checks": kinds["check"],
            "restarts": sum(row["restarts"] or 0 for row in parts),
            "reason": "",
        }
        for row in told:
            yield {**row, "part": f"  {row['part'].partition('.')[2]}", "services": "", "checks": ""}


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
