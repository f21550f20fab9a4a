"""Flows from a file, as `observe -o json` or the exporter wrote them: one JSON object a line."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator

from google.protobuf import json_format

from axoneme.core.errors import AxonemeError, Where
from axoneme.plugins.hubble.proto import observer_pb2

#: Characters of one line; a flow has some thousand at most.
LONGEST = 1 << 20


def read_flows(name: str, request: observer_pb2.GetFlowsRequest) -> Iterator[observer_pb2.GetFlowsResponse]:
    """The answers in the file that the request asks for, in the file's order.

    :param name: a path, or `-` for standard input.
    :raises AxonemeError: when the file cannot be read, or a line is no answer.
    """
    chosen = _chosen(_answers(name), request)
    if request.number and not request.first:
        yield from deque(chosen, maxlen=min(request.number, sys.maxsize))
        return
    for count, answer in enumerate(chosen):
        if request.number and count >= request.number:
            return
        yield answer


def _answers(name: str) -> Iterator[observer_pb2.GetFlowsResponse]:
    try:
        with sys.stdin if name == "-" else open(name, encoding="utf-8") as file:
            for number, line in enumerate(iter(lambda: file.readline(LONGEST), ""), 1):
                if line.strip():
                    yield _answer(line, Where("standard input" if name == "-" else name, number))
    except (OSError, UnicodeDecodeError) as error:
        raise AxonemeError(f"cannot be read: {error}", where=Where(name)) from None


def _answer(line: str, where: Where) -> observer_pb2.GetFlowsResponse:
    try:
        return json_format.Parse(line, observer_pb2.GetFlowsResponse(), ignore_unknown_fields=True)
    except json_format.ParseError as error:
        raise AxonemeError(f"not a flow: {error}", where=where) from None


def _chosen(
    answers: Iterable[observer_pb2.GetFlowsResponse], request: observer_pb2.GetFlowsRequest
) -> Iterator[observer_pb2.GetFlowsResponse]:
    since = request.since.ToNanoseconds() if request.HasField("since") else None
    until = request.until.ToNanoseconds() if request.HasField("until") else None
    for answer in answers:
        time = answer.time.ToNanoseconds()
        if (since is None or time >= since) and (until is None or time <= until):
            yield answer
