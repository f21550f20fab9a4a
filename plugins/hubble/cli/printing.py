"""Writes answers to the terminal: what was asked for on standard output, what happens to nodes on standard error."""

from __future__ import annotations

import sys
from typing import Any, Self

import attrs
import click

from axoneme.core.cli.output import colored
from axoneme.plugins.hubble import formats, jsonpb
from axoneme.plugins.hubble.cli import texts
from axoneme.plugins.hubble.formats import TIME_FORMATS, Look
from axoneme.plugins.hubble.proto import flow_pb2, observer_pb2

__all__ = ["TIME_FORMATS", "EventPrinter", "FlowPrinter", "Look"]


class _Printer:
    """A table is written at the end, when the widths of its columns are known; all else at once."""

    def __init__(self, look: Look) -> None:
        wanted = colored() if look.color == "auto" else look.color == "always"
        self.look = attrs.evolve(look, colored=wanted and look.output != "table")
        self._rows: list[list[str]] = []
        self._lines = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._rows:
            click.echo(texts.table(self._rows), nl=False)
        sys.stdout.flush()

    def _out(self, text: str) -> None:
        click.echo(text, color=self.look.colored or None)
        self._lines += 1

    def _row(self, header: list[str], row: list[str]) -> None:
        if not self._rows:
            self._rows.append(header)
        self._rows.append(row)

    def _pairs(self, pairs: list[tuple[str, str]], *, err: bool = False) -> None:
        separator = f"{formats.SEPARATOR}\n" if self._lines else ""
        click.echo(separator + formats.dictionary(pairs), nl=False, err=err, color=self.look.colored or None)
        self._lines += 1


class FlowPrinter(_Printer):
    def __call__(self, answer: observer_pb2.GetFlowsResponse) -> None:
        kind = answer.WhichOneof("response_types")
        if kind == "node_status":
            self._node_status(answer)
        elif kind is None:
            return
        elif self.look.output == "json":
            self._out(jsonpb.text(answer))
        elif self.look.output == "dict":
            self._pairs(formats.pairs(answer, self.look))
        elif self.look.output == "table":
            self._row(formats.header(self.look), formats.row(answer, self.look))
        else:
            self._out(formats.compact(answer, self.look))

    def _node_status(self, answer: observer_pb2.GetFlowsResponse) -> None:
        """Good news only for who looks for errors in the mesh itself."""
        name = answer.node_status.state_change
        if self.look.silent or (not self.look.debug and name not in (_UNAVAILABLE, _ERROR)):
            return
        if self.look.output == "json":
            click.echo(jsonpb.text(answer), err=True)
        elif self.look.output == "dict":
            self._pairs(formats.node_status_pairs(answer, self.look), err=True)
        else:
            click.echo(formats.node_status(answer, self.look), err=True)


_UNAVAILABLE, _ERROR = 2, 4


class EventPrinter(_Printer):
    """Agent events and debug events."""

    def __call__(self, answer: Any) -> None:
        if self.look.output == "json":
            self._out(jsonpb.text(answer))
            return
        time, node = formats.time_text(answer, self.look), formats.safe(answer.node_name)
        kind, details = self._event(answer)
        if self.look.output == "compact":
            shown = f" [{node}]" if self.look.node_name else ""
            self._out(f"{time}{shown}: {kind} ({details})")
            return
        pairs = [("TIMESTAMP", time), ("NODE", node), ("TYPE", kind), ("DETAILS", details)]
        pairs = [pair for pair in pairs if self.look.node_name or pair[0] != "NODE"]
        if self.look.output == "dict":
            self._pairs(pairs)
        else:
            self._row([key for key, _ in pairs], [value for _, value in pairs])

    def _event(self, answer: Any) -> tuple[str, str]:
        if isinstance(answer, observer_pb2.GetAgentEventsResponse):
            event = answer.agent_event
            start = (
                formats.time_text(event.agent_start, self.look) if event.HasField("agent_start") else "N/A"
            )
            return flow_pb2.AgentEventType.Name(event.type), formats.safe(texts.agent_event(event, start))
        debug = answer.debug_event
        return flow_pb2.DebugEventType.Name(debug.type), formats.safe(debug.message)
