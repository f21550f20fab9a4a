"""Asks a running agent: synchronous, for the command line and for scripts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from axoneme.core.api.wire import (
    ERROR_KEY,
    MAX_ANSWER,
    SERVICE,
    RequestError,
    decode,
    encode,
    error_from_json,
)
from axoneme.core.errors import AxonemeError, Where


class NotRunningError(AxonemeError):
    """No agent listens on the socket, or it may not be used."""


class Client:
    """A connection to the agent behind a socket.

    with Client(path) as client:
        for row in client.call("endpoint.list"): …
        for event in client.stream("monitor", types=["drop"]): …

    :raises NotRunningError: from the calls, when no agent answers.
    """

    def __init__(self, path: Path, *, timeout: float | None = 30.0) -> None:
        import grpc

        self._grpc = grpc
        self._path = path
        self._timeout = timeout
        self._channel = grpc.insecure_channel(
            f"unix:{path}",
            options=[
                ("grpc.max_receive_message_length", MAX_ANSWER),
                ("grpc.enable_http_proxy", 0),
                ("grpc.default_authority", "localhost"),
            ],
        )

    def call(self, method: str, /, **arguments: Any) -> Any:
        """One answer."""
        ask = self._channel.unary_unary(f"/{SERVICE}/{method}")
        with self._errors(method):
            return decode(ask(encode(arguments), timeout=self._timeout))

    def stream(self, method: str, /, **arguments: Any) -> Iterator[Any]:
        """Answers as they come."""
        ask = self._channel.unary_stream(f"/{SERVICE}/{method}")
        with self._errors(method):
            for answer in ask(encode(arguments)):
                yield decode(answer)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _errors(self, method: str) -> Iterator[None]:
        """Turns gRPC's errors back into those that the agent raised."""
        try:
            yield
        except self._grpc.RpcError as error:
            raise self._explained(error, method) from None

    def _explained(self, error: Any, method: str) -> AxonemeError:
        for key, value in error.trailing_metadata() or ():
            if key == ERROR_KEY:
                return error_from_json(decode(value))
        code = self._grpc.StatusCode
        if error.code() is code.UNAVAILABLE:
            return self._not_running()
        if error.code() is code.UNIMPLEMENTED:
            return RequestError(
                f"the agent has no method {method}", hint="is the plugin enabled? see `axoneme plugin list`"
            )
        return AxonemeError(f"{method}: {error.details() or error.code().name}")

    def _not_running(self) -> NotRunningError:
        where = Where(str(self._path))
        if not _visible(self._path):
            hint = "start it with `axoneme agent`, or say --socket or --config if it runs elsewhere"
            return NotRunningError("no agent is running", where=where, hint=hint)
        hint = "if an agent runs, use sudo or join the group in agent.socket_group"
        return NotRunningError("the agent does not answer", where=where, hint=hint)


def _visible(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return True
