"""Serves API methods over gRPC on a unix socket, which only root and one group may use."""

from __future__ import annotations

import asyncio
import grp
import inspect
import os
import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from axoneme.core import logs
from axoneme.core.api.wire import (
    ERROR_KEY,
    MAX_ANSWER,
    MAX_REQUEST,
    SERVICE,
    NotFoundError,
    RequestError,
    decode,
    encode,
    encode_error,
)
from axoneme.core.errors import (
    AxonemeError,
    ConfigError,
    KernelError,
    LockedError,
    PluginError,
    ResourceError,
    Where,
)
from axoneme.core.histogram import Histogram
from axoneme.core.records import ApiMethod

_log = logs.get(__name__)

#: Seconds that calls took, by path, method and HTTP's code for the outcome: the labels that Cilium's REST API has.
SECONDS: Final = Histogram()

#: Waits for something that goes on when nobody waits any more.
Finish = Callable[[Awaitable[Any]], Awaitable[Any]]

#: Seconds that calls under way have when the agent stops.
GRACE: Final = 1.0
#: The longest path that a unix socket's address holds (sun_path in unix(7), with its final zero).
_LONGEST_PATH: Final = 107

#: Bytes of an error in the answer's metadata, which gRPC limits to 8 KiB in all.
METADATA: Final = 5000

#: gRPC status codes by error class, the first that fits.
_CODES: Final = (
    (NotFoundError, "NOT_FOUND"),
    (RequestError, "INVALID_ARGUMENT"),
    ((ConfigError, PluginError, ResourceError), "FAILED_PRECONDITION"),
    (LockedError, "UNAVAILABLE"),
    (KernelError, "INTERNAL"),
)

_HTTP_CODES: Final = ((NotFoundError, "404"), (RequestError, "400"))


class Server:
    """The API on one socket.

    :param find: gives the method of a name, or None; asked at each call, because reloads change the answer.
    :param group: the group that may connect besides root; empty for none.
    """

    def __init__(self, path: Path, find: Callable[[str], ApiMethod | None], *, group: str = "") -> None:
        self.path = path
        self._find = find
        self._group = group
        self._server: Any = None
        self._underway: set[asyncio.Future[Any]] = set()

    async def start(self) -> None:
        """Listens. Raises `AxonemeError` when the path is too long or the group does not exist."""
        if len(os.fsencode(self.path)) > _LONGEST_PATH:
            raise AxonemeError(
                f"the path of the socket is longer than {_LONGEST_PATH} bytes",
                where=Where(str(self.path)),
                hint="choose a shorter agent.run_dir",
            )
        owner = _group_id(self._group)
        import grpc
        from grpc import aio

        options = [("grpc.max_receive_message_length", MAX_REQUEST), ("grpc.so_reuseport", 0)]
        options += [("grpc.max_send_message_length", MAX_ANSWER)]
        self._server = aio.server(options=options)
        self._server.add_generic_rpc_handlers((_handler(grpc, self._find, self._finish),))
        self._bind(owner)
        await self._server.start()

    def _bind(self, owner: int) -> None:
        """The socket must at no moment be open to everybody."""
        if self.path.exists() and stat.S_ISSOCK(self.path.stat().st_mode):
            self.path.unlink()  # of an agent that died; the state folder's lock says that it did
        before = os.umask(0o177)
        try:
            self._server.add_insecure_port(f"unix:{self.path}")
        except RuntimeError as error:
            raise AxonemeError(f"cannot listen: {error}", where=Where(str(self.path))) from error
        finally:
            os.umask(before)
        os.chown(self.path, -1, owner)
        os.chmod(self.path, 0o660)

    async def stop(self) -> None:
        await self._server.stop(GRACE)
        if self._underway:
            await asyncio.wait(self._underway, timeout=GRACE)
        for work in self._underway:
            work.cancel()
        self.path.unlink(missing_ok=True)

    async def _finish(self, work: Awaitable[Any]) -> Any:
        """Lets what was asked for come to its end, also when whoever asked goes away: a change is not made by halves."""
        task = asyncio.ensure_future(work)
        self._underway.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    def _forget(self, work: asyncio.Future[Any]) -> None:
        self._underway.discard(work)
        if not work.cancelled() and (error := work.exception()) is not None:
            _log.debug("API call failed", error=logs.describe(error))


def _group_id(name: str) -> int:
    if not name:
        return -1
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigError(f"there is no group {name!r}", hint="see agent.socket_group") from None


def _handler(grpc: Any, find: Callable[[str], ApiMethod | None], finish: Finish) -> Any:
    """The generic handler: it knows no method by itself."""

    class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: Any) -> Any:
            service, _, name = details.method.lstrip("/").partition("/")
            method = find(name) if service == SERVICE else None
            if method is None:
                return None
            make = (
                grpc.unary_stream_rpc_method_handler
                if method.streams
                else grpc.unary_unary_rpc_method_handler
            )
            call = _stream(grpc, method) if method.streams else _unary(grpc, method, finish)
            return make(call, request_deserializer=None, response_serializer=None)

    return Handler()


def _unary(grpc: Any, method: ApiMethod, finish: Finish) -> Callable[[bytes, Any], Any]:
    async def call(request: bytes, context: Any) -> bytes:
        begin, code = time.perf_counter(), "200"
        try:
            result = method.call(**_arguments(method, request))
            if inspect.isawaitable(result):
                result = await finish(result)
            return encode(result)
        except Exception as error:
            code = next((number for kinds, number in _HTTP_CODES if isinstance(error, kinds)), "500")
            await _abort(grpc, context, method, error)
            raise  # abort has raised already
        finally:
            subject, _, verb = method.name.partition(".")
            SECONDS.observe(time.perf_counter() - begin, f"/v1/{subject}", verb or "get", code)

    return call


def _stream(grpc: Any, method: ApiMethod) -> Callable[[bytes, Any], AsyncIterator[bytes]]:
    async def call(request: bytes, context: Any) -> AsyncIterator[bytes]:
        try:
            answers = method.call(**_arguments(method, request))
            if inspect.isawaitable(answers):
                answers = await answers
            async for answer in answers:
                yield encode(answer)
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except Exception as error:  # noqa: BLE001 - as above
            await _abort(grpc, context, method, error)

    return call


def _arguments(method: ApiMethod, request: bytes) -> dict[str, Any]:
    """The keyword arguments of a call. Raises `RequestError` for what the method does not take."""
    try:
        arguments = decode(request)
    except ValueError as error:
        raise RequestError(f"the request is not JSON: {error}") from None
    if not isinstance(arguments, dict):
        raise RequestError("the request is not a JSON object")
    try:
        inspect.signature(method.call).bind(**arguments)
    except TypeError as error:
        raise RequestError(f"{method.name}: {error}") from None
    return arguments


async def _abort(grpc: Any, context: Any, method: ApiMethod, error: Exception) -> None:
    if not isinstance(error, AxonemeError):
        _log.error("API method failed", method=method.name, error=error)
        error = AxonemeError(f"{method.name} failed: {logs.describe(error)}", hint="see the agent's log")
    code = next((code for kinds, code in _CODES if isinstance(error, kinds)), "UNKNOWN")
    metadata = ((ERROR_KEY, encode_error(error, METADATA)),)
    await context.abort(getattr(grpc.StatusCode, code), str(error)[:300], metadata)
