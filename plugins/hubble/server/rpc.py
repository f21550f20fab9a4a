"""Handlers of gRPC methods: requests are parsed strictly, answers are bytes already, errors say what is wrong."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any

from attrs import frozen
from google.protobuf.message import DecodeError, Message

from axoneme.core import logs
from axoneme.core.errors import AxonemeError
from axoneme.plugins.hubble.filters.errors import CombinationError
from axoneme.plugins.hubble.server import calls
from axoneme.plugins.hubble.server.calls import Calls

_log = logs.get(__name__)

Metadata = tuple[tuple[str, str], ...]


class CallError(AxonemeError):
    """What a caller is told, with the name of a gRPC status code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Room:
    """How many calls are answered at the same time."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.used = 0

    def __enter__(self) -> None:
        if self.used >= self.size:
            raise CallError(
                "RESOURCE_EXHAUSTED", f"{self.size} requests are being answered already; try again later"
            )
        self.used += 1

    def __exit__(self, *_: object) -> None:
        self.used -= 1


@frozen(kw_only=True)
class Method:
    """A method of a service: from a request to one message, or, streaming, to serialized ones.

    `call` gets the request and the gRPC context.
    """

    request: type[Message]
    call: Callable[[Any, Any], Awaitable[Message] | AsyncIterator[bytes]]
    streams: bool = False


def handlers(
    service: str, methods: Mapping[str, Method], *, metadata: Metadata = (), room: Room | None = None
) -> Any:
    """The generic handler of a service.

    :param metadata: sent before each answer.
    """
    import grpc

    room = room or Room(1 << 16)
    made = {}
    for name, method in methods.items():
        count = calls.of(service, name, streams=method.streams)
        if method.streams:
            made[name] = grpc.unary_stream_rpc_method_handler(_stream(count, method, metadata, room))
        else:
            made[name] = grpc.unary_unary_rpc_method_handler(_unary(count, method, metadata, room))
    return grpc.method_handlers_generic_handler(service, made)


def _unary(
    count: Calls, method: Method, metadata: Metadata, room: Room
) -> Callable[[bytes, Any], Awaitable[bytes]]:
    async def answer(data: bytes, context: Any) -> bytes:
        with _counted(count) as ended:
            try:
                with room:
                    await context.send_initial_metadata(metadata)
                    result: Any = method.call(parse(method.request, data), context)
                    message: Message = await result
                    count.sent += 1
                    return message.SerializeToString()
            except Exception as error:
                ended(_code(error))
                await _abort(context, count, error)
                raise  # abort has raised already

    return answer


def _stream(
    count: Calls, method: Method, metadata: Metadata, room: Room
) -> Callable[[bytes, Any], Awaitable[None]]:
    async def answer(data: bytes, context: Any) -> None:
        with _counted(count) as ended:
            try:
                with room:
                    await context.send_initial_metadata(metadata)
                    messages: Any = method.call(parse(method.request, data), context)
                    async with contextlib.aclosing(messages):  # also when the client has gone
                        async for message in messages:
                            await context.write(message)
                            count.sent += 1
            except (asyncio.CancelledError, GeneratorExit):
                ended("CANCELLED")
                raise
            except Exception as error:  # noqa: BLE001 - the caller is told, the log too
                ended(_code(error))
                await _abort(context, count, error)

    return answer


@contextlib.contextmanager
def _counted(count: Calls) -> Iterator[Callable[[str], None]]:
    """Counts a call; what it yields is told the code that it ends with, if that is not OK."""
    code = "OK"

    def ended(name: str) -> None:
        nonlocal code
        code = name

    count.begin()
    try:
        yield ended
    finally:
        count.end(code)


def parse(kind: type[Message], data: bytes) -> Message:
    """The request. Raises `CallError` for bytes that are none."""
    try:
        return kind.FromString(data)
    except DecodeError:
        raise CallError("INVALID_ARGUMENT", f"the request is no {kind.DESCRIPTOR.full_name}") from None


def _code(error: Exception) -> str:
    """The name of the gRPC status code for an error."""
    if isinstance(error, CallError):
        return error.code
    if isinstance(error, AxonemeError):
        return "INVALID_ARGUMENT" if isinstance(error, CombinationError) else "UNKNOWN"
    return "INTERNAL"


async def _abort(context: Any, count: Calls, error: Exception) -> None:
    import grpc

    if context.cancelled() or context.done():
        return
    code, name = _code(error), f"{count.service}/{count.method}"
    if not isinstance(error, AxonemeError):
        _log.error("a Hubble call failed", method=name, error=error)
        error = CallError("INTERNAL", f"{name} failed; see the agent's log")
    await context.abort(getattr(grpc.StatusCode, code), error.args[0][:1000])
