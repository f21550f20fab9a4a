"""Who may look: tokens, cookies, and what is asked without them; and how the page is started."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from browsing import address, sections

from axoneme.core.errors import AxonemeError, ConfigError
from axoneme.core.testing.agent import AgentKit
from axoneme.plugins.hubble.ui.access import access
from axoneme.plugins.hubble.ui.application import ASSETS

TOKEN = "correct-horse-battery"
APIS = ("status", "stream", "window?since=0&until=1", "timeline", "flow?n=1", "explain")


def test_tokens(tmp_path: Path) -> None:
    assert access(True, None).open
    drawn = access(False, None)
    assert len(drawn.token) > 40
    assert access(False, None).token != drawn.token
    file = tmp_path / "token"
    with pytest.raises(ConfigError, match="cannot be read"):
        access(False, file)
    file.write_text("short\n")
    with pytest.raises(ConfigError, match="fewer than 16"):
        access(False, file)
    file.write_text(f"{TOKEN}\n")
    locked = access(True, file)
    assert not locked.allows("")
    assert not locked.allows("", "Bearer wrong")
    assert not locked.allows("", f"Basic {TOKEN}")
    assert locked.allows("", f"Bearer {TOKEN}")
    assert locked.enter("wrong") is None
    session = locked.enter(TOKEN)
    assert session is not None
    assert locked.allows(session)
    for _ in range(100):
        locked.enter(TOKEN)
    assert not locked.allows(session), "the oldest of many gives way"


@pytest.mark.parametrize(
    "ui", [{"listen": "0.0.0.0:0"}, {"listen": "nowhere"}, {"listen": ":0", "tls": {"key": "/none"}}]
)
async def test_beyond_loopback_it_wants_tls(ui: dict[str, Any]) -> None:
    with pytest.raises(AxonemeError):
        async with AgentKit(values=sections(**ui)):
            pass


async def test_nothing_is_told_without_the_token(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / "token").write_text(TOKEN)
    async with (
        AgentKit(values=sections(token=str(tmp_path / "token"))) as kit,
        aiohttp.ClientSession(address(kit)) as session,
    ):
        for name in APIS:
            async with session.get(f"/api/{name}") as response:
                assert response.status == 401, name
            async with session.get(f"/api/{name}", headers={"Authorization": "Bearer x"}) as response:
                assert response.status == 401, name
        for path in ("/assets/../access.py", "/assets/%2e%2e/access.py", "/assets/nothing.js", "/api/none"):
            async with session.get(path) as response:
                assert response.status in (401, 404), path
        async with session.post("/api/session", data={"token": TOKEN}) as response:
            assert response.status == 415, "what a form of another page could send"
        async with session.post("/api/session", json={"token": TOKEN * 1000}) as response:
            assert response.status in (400, 403, 413)
        async with session.post("/api/session", json=[]) as response:
            assert response.status == 400
        async with session.get("/api/status", headers={"Authorization": f"Bearer {TOKEN}"}) as response:
            assert response.status == 200
        opened = await asyncio.to_thread(kit.client().call, "hubble.ui")
        assert opened == {"url": address(kit), "token": TOKEN}
    assert TOKEN not in caplog.text


async def test_the_page_and_its_answers() -> None:
    async with AgentKit(values=sections()) as kit, aiohttp.ClientSession(address(kit)) as session:
        for name in ASSETS:
            async with session.get(f"/assets/{name}") as response:
                assert response.status == 200
                assert "script-src 'self'" in response.headers["Content-Security-Policy"]
                text = await response.text()
                assert "http://" not in text.replace("http://www.w3.org/", "").replace("http.server", ""), (
                    "works offline"
                )
                assert "innerHTML" not in text
        for query, status in (
            ("q=port:443", 200),
            ("q=nope:1", 400),
            ("q=path:[", 400),
            ("since=x&until=1", 400),
        ):
            async with session.get(
                f"/api/window?since=0&until=1&{query}" if "since" not in query else f"/api/window?{query}"
            ) as response:
                assert response.status == status, query
        async with session.get("/api/flow?n=77") as response:
            assert response.status == 404
        async with session.get("/api/explain?source=a&destination=b&port=1/TCP") as response:
            assert response.status == 409
            assert (await response.json())["error"]
        async with session.get("/api/stream") as response:
            assert response.headers["Content-Type"].startswith("text/event-stream")
            assert await response.content.readline() == b"event: snapshot\n"
            told = json.loads((await response.content.readline()).removeprefix(b"data: "))
            assert told["edges"] == []
        async with session.get("/api/status", headers={"Host": "evil.example"}) as response:
            assert response.status == 421, "a page of the world that calls itself by another name"


async def test_it_explains_nothing_politely_without_the_policy_plugin() -> None:
    values = sections()
    values["plugins"]["enabled"] = ["hubble"]
    async with AgentKit(values=values) as kit, aiohttp.ClientSession(address(kit)) as session:
        async with session.get("/api/explain?source=a&destination=b&port=1/TCP") as response:
            assert response.status == 404
        async with session.get("/api/status") as response:
            assert (await response.json())["explains"] is False


async def test_it_starts_once_it_is_asked_for() -> None:
    async with AgentKit(values=sections(enabled=False)) as kit:
        call = kit.client().call
        opened = await asyncio.to_thread(call, "hubble.ui")
        assert await asyncio.to_thread(call, "hubble.ui") == opened
        async with aiohttp.ClientSession() as session, session.get(opened["url"]) as response:
            assert response.status == 200
        taken = int(opened["url"].rsplit(":", 1)[1].rstrip("/"))
        async with AgentKit(values=sections(enabled=False, listen=f"127.0.0.1:{taken}")) as other:
            with pytest.raises(AxonemeError, match="Address already in use"):
                await asyncio.to_thread(other.client().call, "hubble.ui")


async def test_nothing_heavy_is_loaded_before_somebody_asks() -> None:
    """In a process of its own: the agent with Hubble has neither the HTTP server nor Prometheus' library in its memory."""
    program = """
import asyncio, sys
from axoneme.core.testing.agent import AgentKit

async def main():
    async with AgentKit(values={"plugins": {"enabled": ["policy", "hubble"]}}):
        print([name for name in ("aiohttp", "prometheus_client") if name in sys.modules])

asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    output, _ = await process.communicate()
    assert output.decode().strip() == "[]"


async def test_a_changed_configuration_keeps_the_page() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
    values = sections(enabled=False, listen=place)
    async with AgentKit(values=values) as kit:
        opened = await asyncio.to_thread(kit.client().call, "hubble.ui")
        changed = sections(enabled=False, listen=place)
        changed["plugins"]["hubble"]["flows"] = 4096
        kit.configure(changed)
        assert await kit.agent.reload()
        async with aiohttp.ClientSession() as session, session.get(f"{opened['url']}api/status") as response:
            assert (await response.json())["capacity"] == 4096
