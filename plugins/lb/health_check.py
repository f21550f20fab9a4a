"""healthCheckNodePort: tells load balancers in front of this node whether it has backends of a service.

The answer is kube-proxy's (pkg/proxy/healthcheck): 200 with local backends, 503 without; how many there are, as JSON and as a
weight for those who balance by it. Who asks by IPv4 is told of backends that have IPv4, and so with IPv6, as his clients' traffic
goes to those; if the service has only one family, of that.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from attrs import frozen

from axoneme.core import logs
from axoneme.plugins.lb.model import Name

log = logs.get(__name__)

#: Bytes of a request that are read, seconds that it may take, and how many are answered at the same time.
LONGEST: Final = 8192
PATIENCE: Final = 5.0
MOST: Final = 64
#: Seconds until a port that somebody else has is tried again.
AGAIN: Final = 10.0


@frozen
class Local:
    """A service that asks for the check.

    :param backends: how many on this node get new connections, by each address family that the service has.
    """

    name: Name
    backends: Mapping[int, int]

    def seen_by(self, family: int) -> int:
        """How many there are for who asks by this family."""
        return self.backends.get(family, max(self.backends.values(), default=0))


class HealthServer:
    """A service: listens at the ports that are wanted, and no longer than they are.

    :param wanted: gives the services by port.
    """

    def __init__(self, wanted: Callable[[], Mapping[int, Local]]) -> None:
        self._wanted = wanted
        self._servers: dict[int, asyncio.Server] = {}
        #: Ports at which it cannot listen, and why.
        self.problems: dict[int, str] = {}
        self._changed = asyncio.Event()
        self._busy = 0

    def look(self) -> None:
        """What is wanted may have changed."""
        self._changed.set()

    async def run(self, ready: Callable[[], None]) -> None:
        """Until it is cancelled; see `axoneme.core.records.Service`."""
        try:
            while True:
                self._changed.clear()
                await self._follow(self._wanted())
                ready()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(AGAIN if self.problems else None):
                        await self._changed.wait()
        finally:
            for server in self._servers.values():
                server.close()
            self._servers.clear()

    async def _follow(self, wanted: Mapping[int, Local]) -> None:
        for port in self._servers.keys() - wanted.keys():
            self._servers.pop(port).close()
        self.problems = {port: why for port, why in self.problems.items() if port in wanted}
        for port in wanted.keys() - self._servers.keys():
            try:
                serve = partial(self._serve, port)
                # Another generation of the plugin may still be listening.
                self._servers[port] = await asyncio.start_server(
                    serve, None, port, limit=LONGEST, reuse_port=True
                )
                self.problems.pop(port, None)
            except OSError as error:
                if port not in self.problems:
                    log.warning("health_check_port_taken", port=port, reason=error.strerror)
                self.problems[port] = error.strerror or str(error)

    async def _serve(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._busy += 1
        try:
            if self._busy <= MOST:
                async with asyncio.timeout(PATIENCE):
                    await reader.readuntil(b"\r\n\r\n")
                    writer.write(self._answer(port, _family(writer)))
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self._busy -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _answer(self, port: int, family: int) -> bytes:
        local = self._wanted().get(port)
        count = 0 if local is None else local.seen_by(family)
        namespace, name = ("", "") if local is None else local.name
        content = {
            "service": {"namespace": namespace, "name": name},
            "localEndpoints": count,
            "serviceProxyHealthy": True,
        }
        body = json.dumps(content).encode()
        lines = (
            f"HTTP/1.1 {'200 OK' if count else '503 Service Unavailable'}",
            "Content-Type: application/json",
            "X-Content-Type-Options: nosniff",
            f"X-Load-Balancing-Endpoint-Weight: {count}",
            f"Content-Length: {len(body)}",
            "Connection: close",
        )
        return "".join(f"{line}\r\n" for line in (*lines, "")).encode() + body


def _family(writer: asyncio.StreamWriter) -> int:
    return 6 if writer.get_extra_info("socket").family == socket.AF_INET6 else 4
