"""Takes the pictures of the page that the documentation shows: a shop under made traffic, in Debian's Chromium.

.venv/bin/python contrib/docs/screenshots.py [FOLDER]
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "plugins" / "hubble" / "ui"))

from browsing import ARGUMENTS, CHROMIUM, address, sections  # noqa: E402
from playwright.async_api import Page, async_playwright  # noqa: E402
from scene import Scene  # noqa: E402

from axoneme.core.testing.agent import AgentKit  # noqa: E402

SIZE = {"width": 1440, "height": 900}


async def main(folder: Path) -> None:
    values = sections() | {"node": {"name": "node1"}}
    with tempfile.TemporaryDirectory(prefix="shop-", dir="/run") as place:
        async with AgentKit(values=values, folder=Path(place)) as kit:
            scene = Scene(kit)
            await scene.build()
            await scene.settled()
            scene.play(600, 600)
            async with async_playwright() as playwright:
                browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
                for theme, name in (
                    ("light", "ui-map"),
                    ("light", "ui-explain"),
                    ("dark", "ui-dark"),
                    ("light", "ui-past"),
                ):
                    page = await browser.new_page(viewport=SIZE, color_scheme=theme)
                    await page.goto(address(kit))
                    await page.locator(".row").first.wait_for()
                    await live(scene, page, 6)
                    await SHOWS[name](scene, page)
                    await page.screenshot(path=folder / f"{name}.png")
                    await page.close()
                await browser.close()


async def live(scene: Scene, page: Page, seconds: int) -> None:
    for _ in range(seconds):
        scene.play(1)
        await asyncio.sleep(1)


async def the_map(scene: Scene, page: Page) -> None:
    await page.mouse.move(5, 600)


async def explained(scene: Scene, page: Page) -> None:
    await page.locator("[data-link*='recommendations'][data-link*='postgres']").press("Enter")
    await page.get_by_role("button", name="Why?").click()
    await page.get_by_text("A rule that would allow it").wait_for()
    await live(scene, page, 1)


async def dark(scene: Scene, page: Page) -> None:
    await page.locator("#filter").fill("ns:shop")
    await page.keyboard.press("Enter")
    await live(scene, page, 3)
    await page.locator(".row", has_text="HTTP").first.click()
    await live(scene, page, 1)


async def past(scene: Scene, page: Page) -> None:
    await page.locator("#timeline").focus()
    for key in ("ArrowLeft", "PageUp", "PageUp", "PageUp", "ArrowUp"):
        await page.keyboard.press(key)
    await page.get_by_role("button", name="dropped", exact=True).click()
    await page.locator("[data-party='workload:observability/prometheus']").click()
    await asyncio.sleep(0.6)


SHOWS = {"ui-map": the_map, "ui-explain": explained, "ui-dark": dark, "ui-past": past}


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent))
