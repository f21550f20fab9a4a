"""`axoneme policy get`: the effective decision tables and the rules behind them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

DEFAULT_SOCKET = Path("/run/axoneme/axoneme.sock")


@click.command(name="get")
@click.argument("workload", default="")
@click.option(
    "-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", help="how to print it"
)
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    default=DEFAULT_SOCKET,
    help="the agent's socket",
    show_default=True,
)
def get(workload: str, output: str, socket: Path) -> None:
    """Show what policy decides, for one WORKLOAD ([NAMESPACE/]NAME or endpoint id) or for all."""
    from axoneme.core.api.client import Client

    with Client(socket) as client:
        answer = client.call("policy.get", workload=workload)
    if workload and not answer["workloads"]:
        raise click.ClickException(f"no workload {workload!r}")
    click.echo(render(answer, output))


def render(answer: dict[str, Any], output: str) -> str:
    """The answer of `policy.get` as text."""
    if output == "json":
        return json.dumps(answer, indent=2)
    if output == "yaml":
        import yaml

        text: str = yaml.safe_dump(answer, sort_keys=False)
        return text.rstrip()
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
