"""`axoneme monitor`."""

from __future__ import annotations

import json
from typing import Any

import click

from axoneme.core.cli.output import colored
from axoneme.core.cli.session import Session

_COLORS = {"drop": "red", "new": "green", "close": "blue", "lost": "yellow"}


@click.command()
@click.option(
    "--type",
    "types",
    multiple=True,
    type=click.Choice(["drop", "new", "close", "update", "translate"]),
    help="Only events of this type; may be repeated.",
)
@click.option("--workload", default="", metavar="[NAMESPACE/]NAME", help="Only events of this workload.")
@click.option("--last", "limit", type=click.IntRange(min=0), default=0, help="Stop after so many events.")
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", help="Lines, or JSON per line."
)
@click.pass_obj
def command(session: Session, types: tuple[str, ...], workload: str, limit: int, output: str) -> None:
    """Watch connections begin, end and be refused, each with the rule that decided. Ctrl-C ends it."""
    for event in session.stream("monitor", types=list(types), workload=workload, limit=limit):
        click.echo(json.dumps(event, ensure_ascii=False) if output == "json" else line(event))


def line(event: dict[str, Any]) -> str:
    """One event for people."""
    kind = event["type"]
    word = click.style(f"{kind:<5}", fg=_COLORS.get(kind)) if colored() else f"{kind:<5}"
    if kind == "lost":
        return f"{word} {event['count']} events: this monitor is too slow"
    text = f"{event['time'][11:]} {word} {event['protocol']:<6} {_side(event['source'])} -> {_side(event['destination'])}"
    return f"{text}  {_detail(event)}".rstrip()


def _side(side: dict[str, Any]) -> str:
    address, port = side["address"], side.get("port")
    if port is not None:
        address = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    who = side.get("workload") or _label(side)
    return f"{who} ({address})" if who else address


def _label(side: dict[str, Any]) -> str:
    reserved = [label for label in side.get("labels", ()) if label.startswith("reserved:")]
    return reserved[0] if reserved else ""


def _detail(event: dict[str, Any]) -> str:
    parts = [event["reason_text"]] if "reason_text" in event else []
    if event.get("verdict") == "audited":
        parts = ["passes as rehearsed, else: " + ", ".join(parts)]
    parts += [
        f"{way} by {event[f'{way}_rule']['text']}" for way in ("egress", "ingress") if f"{way}_rule" in event
    ]
    if event["type"] == "close":
        parts.append(
            f"{event['packets']}+{event['reply_packets']} packets, {event['bytes']}+{event['reply_bytes']} bytes"
        )
    return "; ".join(parts)
