"""A browser, and the shop with its page."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, async_playwright

from axoneme.core.testing.agent import AgentKit

sys.path.insert(0, str(Path(__file__).parent))

from browsing import ARGUMENTS, CHROMIUM, Watched, sections
from scene import Scene


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


@pytest.fixture
async def watched(browser: Browser) -> AsyncIterator[Watched]:
    page = await browser.new_page(viewport={"width": 1440, "height": 900}, color_scheme="light")
    page.set_default_timeout(15_000)
    watched = Watched(page)
    yield watched
    assert watched.problems == []
