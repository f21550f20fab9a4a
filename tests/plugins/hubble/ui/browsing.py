"""The browser, where the page is, and what went wrong in it: what tests and pictures of the page share."""

from __future__ import annotations

from typing import Any

from playwright.async_api import Page

from axoneme.core.testing.agent import AgentKit

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
