"""The commands of the plugin: `axoneme policy get`, `axoneme policy verdicts`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from axoneme.core.cli.output import Format, emit, output_option
from axoneme.plugins.policy import completing

if TYPE_CHECKING:
    from axoneme.core.cli.session import Session


@click.command(name="get")
@click.argument("workload", default="", shell_complete=completing.workloads)
@output_option
@click.pass_obj
def get(session: Session, workload: str, output: str) -> None:
    """Show what policy decides, for one WORKLOAD ([NAMESPACE/]NAME or endpoint id) or for all."""
    answer = session.call("policy.get", workload=workload)
    if workload and not answer["workloads"]:
        raise click.ClickException(f"no workload {workload!r}")
    if output == Format.TABLE:
        click.echo(table(answer))
    else:
        emit(answer, output)


@click.command(name="verdicts")
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--show", default=20, help="how many mismatches to print at most", show_default=True)
@click.pass_context
def verdicts(context: click.Context, files: tuple[Path, ...], show: int) -> None:
    """Run conformance cases (FILES of JSON lines, also gzipped) through the engine; exit 1 if any side differs."""
    from axoneme.plugins.policy.corpus import read, run

    summary = run(case for file in files for case in read(file))
    counts = Counter(one.kind for one in summary.mismatches)
    shown = {
        "cases": summary.cases,
        "flows": summary.flows,
        "sides": summary.sides,
        "mismatches": dict(counts),
    }
    click.echo(json.dumps(shown))
    for one in summary.mismatches[:show]:
        click.echo(f"{one.case}: {one.kind}: {one.detail}")
    context.exit(1 if summary.mismatches else 0)


def table(answer: dict[str, Any]) -> str:
    """The answer of `policy.get` for people."""
    return "\n".join(_lines(answer))


def _lines(answer: dict[str, Any]) -> Iterator[str]:
    rules = {rule["id"]: rule for rule in answer["rules"]}
    for one in answer["workloads"]:
        yield f"{one['name'] or 'endpoint'} ({one['endpoint']})"
        if one["error"]:
            yield f"  cannot be brought up to date: {one['error']}"
        for direction in ("ingress", "egress"):
            yield from _direction(direction, one[direction], rules)
        yield ""


def _direction(name: str, direction: dict[str, Any], rules: dict[int, dict[str, Any]]) -> Iterator[str]:
    state = "enforced" if direction["enforced"] else "not enforced"
    yield f"  {name}, {state}, policy {direction['policy']:#010x}"
    for peers in direction["peers"]:
        identities = ", ".join(map(str, peers["identities"][:8])) + (
            " …" if len(peers["identities"]) > 8 else ""
        )
        yield f"    {' and '.join(peers['selectors'])}" + (f": identities {identities}" if identities else "")
        for row in peers["decisions"]:
            yield f"      {row['ports']:<20} {_action(row):<24} {_cause(rules[row['rule']])}"
            if would := row["would_deny"]:
                yield f"      {'':<20} {'rehearsed: deny':<24} {_cause(rules[would])}"


def _action(row: dict[str, Any]) -> str:
    extras = [row["action"]]
    if row["auth"]:
        extras.append(f"auth {row['auth']}")
    if row["proxy"]:
        extras.append(row["proxy"])
    return ", ".join(extras)


def _cause(rule: dict[str, Any]) -> str:
    place = f" ({rule['where']})" if rule["where"] else ""
    if not rule["policy"]:
        return str(rule["text"])
    what = rule["path"] if rule["effect"] in ("allow", "deny") else rule["effect"]
    return f"{rule['policy']} {what}{place}"
