"""`axoneme monitor`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from axoneme.core.cli.moment import Moment
from axoneme.core.cli.output import colored
from axoneme.core.cli.session import Session

#: What is shown unless something else is asked for: what happens once. Samples of connections that go on would bury it.
USUAL = ("drop", "new", "close", "translate")

_COLORS = {"drop": "red", "new": "green", "close": "blue", "lost": "yellow"}


@click.command()
@click.option(
    "--type",
    "types",
    multiple=True,
    type=click.Choice(["drop", "new", "close", "update", "translate"]),
    help="Only events of this type; may be repeated. Without it all but `update`, the samples of connections that go on.",
)
@click.option("--workload", default="", metavar="[NAMESPACE/]NAME", help="Only events of this workload.")
@click.option(
    "--since",
    type=Moment(),
    default=None,
    help="Recorded events since then (1h, 7d, a time) instead; needs no agent.",
)
@click.option("--last", "limit", type=click.IntRange(min=0), default=0, help="Stop after so many events.")
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", help="Lines, or JSON per line."
)
@click.pass_obj
def command(
    session: Session, types: tuple[str, ...], workload: str, since: float | None, limit: int, output: str
) -> None:
    """Watch connections begin, end and be refused, each with the rule that decided. Ctrl-C ends it."""
    types = types or USUAL
    if since is None:
        events = session.stream("monitor", types=list(types), workload=workload, limit=limit)
    else:
        found = recorded(session.config.settings.agent.state_dir / "events", since, types, workload)
        events = itertools.islice(found, limit or None)
    for event in events:
        click.echo(
            json.dumps(event, ensure_ascii=False)
            if output == "json"
            else line(event, dated=since is not None)
        )


def recorded(folder: Path, since: float, types: tuple[str, ...], workload: str) -> Iterator[dict[str, Any]]:
    """Events of the store with the names of then, oldest first.

    :param since: seconds ago.
    """
    from axoneme.core.api.datapath_methods import workloads_of
    from axoneme.core.events.naming import StoredNamer
    from axoneme.core.events.store.reader import KEPT, Damage, ago, scan

    damage = Damage()
    chosen = [kind for kind in KEPT if kind.name.lower() in types]
    for stretch in scan(folder, ago(since), types=chosen, damage=damage):
        namer = StoredNamer(stretch.names)
        for event in stretch.records:
            named = namer.name(event)
            if not workload or workload in workloads_of(named):
                yield named
    if damage.frames or damage.segments:
        click.echo(f"{damage.frames + damage.segments} pieces of the event store cannot be read", err=True)


def line(event: dict[str, Any], *, dated: bool = False) -> str:
    """One event for people.

    :param dated: with the day, not only the time of day.
    """
    kind = event["type"]
    word = click.style(f"{kind:<5}", fg=_COLORS.get(kind)) if colored() else f"{kind:<5}"
    if kind == "lost":
        return f"{word} {event['count']} events: this monitor is too slow"
    text = f"{event['time'] if dated else event['time'][11:]} {word} {event['protocol']:<6} {_side(event['source'])} -> {_side(event['destination'])}"
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
