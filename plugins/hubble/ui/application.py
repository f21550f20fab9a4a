"""The page and what it asks for, over HTTP."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from axoneme.core.errors import AxonemeError
from axoneme.core.plugin import PluginContext
from axoneme.plugins.hubble.filters.errors import RequestError
from axoneme.plugins.hubble.ui.access import COOKIE, Access
from axoneme.plugins.hubble.ui.search import KEYS, SearchError
from axoneme.plugins.hubble.ui.view import TICK_ROWS, Answer, Known, Look

if TYPE_CHECKING:
    from aiohttp import web

#: The files of the page, by name: nothing else is ever opened.
ASSETS: Final = {
    "index.html": "text/html", "style.css": "text/css", "favicon.svg": "image/svg+xml", "app.js": "text/javascript",
    "api.js": "text/javascript", "dom.js": "text/javascript", "store.js": "text/javascript",
    "graph.js": "text/javascript", "layout.js": "text/javascript", "traffic.js": "text/javascript",
    "table.js": "text/javascript", "timeline.js": "text/javascript", "details.js": "text/javascript",
    "explain.js": "text/javascript", "filter.js": "text/javascript",
}  # fmt: skip

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

#: Pages that are told of what happens at once.
STREAMS: Final = 32
#: Seconds between two messages to a page, and how long one may take to be sent.
TICK: Final = 1.0
_PATIENCE: Final = 20.0
#: How far a page looks back at first, in ms.
_WINDOW: Final = 300_000.0

Handler = Callable[["web.Request"], Awaitable[Any]]


class Page:
    """The application's handlers."""

    def __init__(self, context: PluginContext, access: Access, secure: bool) -> None:
        self._context = context
        self._access = access
        self._secure = secure
        self._look = Look(context)
        self._streams = 0

    def application(self) -> web.Application:
        from aiohttp import web

        application = web.Application(middlewares=[self._errors(), self._locked()], client_max_size=4096)
        router = application.router
        router.add_get("/", self._asset)
        router.add_get("/assets/{name}", self._asset)
        router.add_post("/api/session", self._session)
        for name in ("status", "stream", "window", "timeline", "flow", "explain"):
            router.add_get(f"/api/{name}", getattr(self, f"_{name}"))
        return application

    # Who may, and what goes wrong

    def _locked(self) -> Any:
        from aiohttp import web

        @web.middleware
        async def locked(request: web.Request, handler: Handler) -> Any:
            free = not request.path.startswith("/api/") or request.path == "/api/session"
            if not free and not self._access.allows(
                request.cookies.get(COOKIE, ""), request.headers.get("Authorization", "")
            ):
                return _json({"error": "a token is needed"}, status=401)
            return await handler(request)

        return locked

    def _errors(self) -> Any:
        from aiohttp import web

        @web.middleware
        async def errors(request: web.Request, handler: Handler) -> Any:
            try:
                return await handler(request)
            except (SearchError, RequestError) as error:
                return _json({"error": error.message, "hint": error.hint}, status=400)
            except AxonemeError as error:
                return _json({"error": error.message, "hint": error.hint}, status=409)

        return errors

    async def _session(self, request: web.Request) -> web.Response:
        """A token for a cookie. It comes as JSON, which no form of another page can send."""
        from aiohttp import web

        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType
        try:
            token = (await request.json())["token"]
        except (ValueError, KeyError, TypeError):
            raise web.HTTPBadRequest from None
        session = self._access.enter(str(token))
        if session is None:
            return _json({"error": "this is not the token"}, status=200 if self._access.open else 403)
        response = _json({})
        response.set_cookie(COOKIE, session, httponly=True, samesite="Strict", secure=self._secure, path="/")
        return response

    # The page

    async def _asset(self, request: web.Request) -> web.Response:
        from aiohttp import web

        name = request.match_info.get("name", "index.html")
        if name not in ASSETS:
            raise web.HTTPNotFound
        body = (resources.files("axoneme.plugins.hubble.ui") / "assets" / name).read_bytes()
        headers = {"Content-Security-Policy": POLICY, "Cross-Origin-Opener-Policy": "same-origin"}
        return web.Response(body=body, content_type=ASSETS[name], charset="utf-8", headers=headers)

    # What it asks for

    async def _status(self, request: web.Request) -> web.Response:
        keys = {name: key.help for name, key in KEYS.items()}
        explains = self._context.method("policy.explain") is not None
        return _json(self._look.status() | {"keys": keys, "explains": explains})

    async def _window(self, request: web.Request) -> web.Response:
        """A stretch of time, in ms since 1970."""
        since, until = _number(request, "since"), _number(request, "until")
        wanted = self._look.filter(request.query.get("q", ""))
        begin, end = self._look.since(since), self._look.since(until)
        return _json(self._told(await self._look.stretch(begin, end, wanted), Known()))

    async def _timeline(self, request: web.Request) -> web.Response:
        wanted = self._look.filter(request.query.get("q", ""))
        buckets = min(max(int(_number(request, "buckets", 120)), 10), 500)
        return _json(await self._look.timeline(buckets, wanted))

    async def _flow(self, request: web.Request) -> web.Response:
        found = self._look.details(int(_number(request, "n")))
        return _json({"error": "this flow is no longer there"}, status=404) if found is None else _json(found)

    async def _explain(self, request: web.Request) -> web.Response:
        """What the policies say, of the plugin that has them."""
        method = self._context.method("policy.explain")
        if method is None:
            return _json({"error": "no plugin that runs explains policies"}, status=404)
        asked = {name: request.query.get(name, "")[:300] for name in ("source", "destination", "port")}
        answer = method.call(**asked)
        return _json(await answer if inspect.isawaitable(answer) else answer)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: first what was, then each second what is new."""
        from aiohttp import web

        wanted = self._look.filter(request.query.get("q", ""))
        if self._streams >= STREAMS:
            return _json({"error": "too many pages are open"}, status=503)
        self._streams += 1
        try:
            response = web.StreamResponse(
                headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
            )
            await response.prepare(request)
            await self._tell(response, wanted)
            return response
        finally:
            self._streams -= 1

    async def _tell(self, response: web.StreamResponse, wanted: Any) -> None:
        """Until the page goes away. One that takes too long to listen is let go; it comes back by itself."""
        ring, known = self._look.observer.ring, Known()
        position = self._look.since(time.time() * 1000 - _WINDOW)
        answer = await self._look.stretch(position, ring.head, wanted)
        kind = "snapshot"
        while True:
            told = self._told(answer, known) | {"status": self._look.status()}
            message = f"event: {kind}\ndata: {json.dumps(told, separators=(',', ':'))}\n\n"
            async with asyncio.timeout(_PATIENCE):
                await response.write(message.encode())
            await asyncio.sleep(TICK)
            kind, missed = "tick", max(0, ring.tail - answer.head)
            answer = await self._look.stretch(answer.head + missed, ring.head, wanted, TICK_ROWS)

    def _told(self, answer: Answer, known: Known) -> dict[str, Any]:
        return {
            "now": int(time.time() * 1000), "head": answer.head, "matched": answer.matched, "rows": answer.rows,
            "edges": answer.edges, "count": answer.count, "dropped": answer.dropped,
        } | self._look.news(answer.edges, known)  # fmt: skip


def _number(request: web.Request, name: str, default: float | None = None) -> float:
    text = request.query.get(name, "")
    if not text and default is not None:
        return default
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not 0 <= number < 1e13:
        raise SearchError(f"{name} is no number")
    return number


def _json(value: Any, *, status: int = 200) -> web.Response:
    from aiohttp import web

    return web.json_response(value, status=status, dumps=_dumps)


def _dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), default=str)
