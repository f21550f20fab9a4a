"""A browser, the shop with its page, and what tests of both share."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright

from axoneme.core.testing.agent import AgentKit

sys.path.insert(0, str(Path(__file__).parent))

from scene import Scene

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


def sections(**ui: Any) -> dict[str, Any]:
    """The configuration of an agent with the page on some free port."""
    return {
        "plugins": {
            "enabled": ["policy", "hubble"],
            "hubble": {"ui": {"enabled": True, "listen": "127.0.0.1:0"} | ui},
        }
    }


def address(kit: AgentKit) -> str:
    """Where its page is."""
    assert kit.agent.generation is not None
    service = next(s for s in kit.agent.generation.services if s.name == "hubble.ui")
    assert service.ready, service.reason
    server = service.service.run.__self__.server  # type: ignore[attr-defined]
    return f"http://127.0.0.1:{server.port}/"


@pytest.fixture
async def shop() -> AsyncIterator[Scene]:
    """The shop with a minute behind it."""
    async with AgentKit(values=sections()) as kit:
        scene = Scene(kit)
        await scene.build()
        await scene.settled()
        scene.play(60, 30)
        yield scene


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        await browser.close()


class Watched:
    """A page, and what went wrong in it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.problems: list[str] = []
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", self._note)

    def _note(self, message: Any) -> None:
        # Answers with an error status are part of some tests; violations of the security policy never are.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.problems.append(message.text)


@pytest.fixture
async def watched(browser: Browser) -> AsyncIterator[Watched]:
    page = await browser.new_page(viewport={"width": 1440, "height": 900}, color_scheme="light")
    page.set_default_timeout(15_000)
    watched = Watched(page)
    yield watched
    assert watched.problems == []
