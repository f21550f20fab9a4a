"""Serves the page, from the start or once somebody wants to see it: until then it costs nothing."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

from axoneme.core.errors import AxonemeError
from axoneme.core.http.server import HttpServer
from axoneme.core.http.settings import ListenAddress, parse_address
from axoneme.core.plugin import PluginContext
from axoneme.plugins.hubble.ui.access import Access, access
from axoneme.plugins.hubble.ui.config import UiSettings

#: Seconds that a start of the page may take.
_PATIENCE = 15.0


class Ui:
    """The page of one agent."""

    def __init__(self, context: PluginContext) -> None:
        self._context = context
        self._settings: UiSettings = context.config.ui
        self._wanted = asyncio.Event()
        self._up = asyncio.Event()
        self._failure: AxonemeError | None = None
        self._place = (context.settings.agent.run_dir, self._settings.listen, self._settings.token)
        self.server: HttpServer | None = None

    async def run(self, ready: Callable[[], None]) -> None:
        """The service: waits until the page is wanted, then serves it until cancelled."""
        if not self._settings.enabled and self._place[0] not in _asked:
            ready()
            await self._wanted.wait()
        try:
            await self._serve(ready)
        except AxonemeError as error:
            self._failure = error
            raise
        finally:
            self._up.clear()

    async def _serve(self, ready: Callable[[], None]) -> None:
        from axoneme.plugins.hubble.ui.application import Page

        settings, address = self._settings, parse_address(self._settings.listen)
        allowed = self._access()
        page = Page(self._context, allowed, settings.tls.certificate is not None)
        self.server = HttpServer(page.application, address, settings.tls, any_host=not allowed.open)

        def up() -> None:
            self._failure = None
            self._up.set()
            ready()

        await self.server.run(up)

    def _access(self) -> Access:
        """Who may look. A changed configuration logs nobody out, as long as it is the same place and token."""
        if self._place not in _accesses:
            _accesses[self._place] = access(
                parse_address(self._settings.listen).loopback, self._settings.token
            )
        return _accesses[self._place]

    async def open(self) -> dict[str, Any]:
        """Where the page is, and the token that it asks for (empty: none). Starts it if need be.

        :raises AxonemeError: why it cannot be served.
        """
        self._wanted.set()
        _asked.add(self._place[0])
        try:
            async with asyncio.timeout(_PATIENCE):
                while not self._up.is_set():
                    if self._failure is not None:
                        raise self._failure
                    await asyncio.wait([asyncio.ensure_future(self._up.wait())], timeout=0.05)
        except TimeoutError:
            raise AxonemeError("the page does not start", hint="see `axoneme status`") from None
        assert self.server is not None
        scheme = "https" if self._settings.tls.certificate else "http"
        host = self.server.address.host
        if ipaddress.ip_address(host).is_unspecified:
            host = "localhost"
        return {
            "url": f"{scheme}://{ListenAddress(host, self.server.port)}/",
            "token": self._access().token,
        }


#: The agents, by their folders, of which somebody wanted to see the page; and who may look, by place.
_asked: Final[set[Path]] = set()
_accesses: Final[dict[tuple[Path, str, Path | None], Access]] = {}

_running: WeakKeyDictionary[PluginContext, Ui] = WeakKeyDictionary()


def of(context: PluginContext) -> Ui:
    """The one of a plugin's context."""
    if context not in _running:
        _running[context] = Ui(context)
    return _running[context]
