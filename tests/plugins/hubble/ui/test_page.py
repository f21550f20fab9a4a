"""The page in a real browser: map, table, filter, explanation, time, keyboard, themes, and what strangers try."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

from browsing import Watched, address, sections
from playwright.async_api import Page, expect
from scene import Scene, crowd

from axoneme.core.testing.agent import AgentKit
from axoneme.plugins.hubble.proto.flow_pb2 import Flow

REFUSED = "[data-link*='recommendations'][data-link*='postgres']"


async def opened(watched: Watched, scene: Scene) -> Page:
    await watched.page.goto(address(scene.kit))
    await expect(watched.page.locator("[data-party='workload:shop/frontend']")).to_be_visible()
    return watched.page


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(15):
        while not await condition():  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.05)


async def test_map_table_and_live_traffic(watched: Watched, shop: Scene) -> None:
    page = await opened(watched, shop)
    for name in shop.endpoints:
        await expect(page.locator(f"[data-party='workload:{name}']")).to_have_count(1)
    assert sorted(await page.locator("text.region").all_text_contents()) == [
        "data",
        "edge",
        "observability",
        "shop",
    ]
    refused = page.locator(REFUSED)
    assert re.search(
        r"recommendations to postgres: TCP 5432; 0 forwarded, \d+ dropped",
        str(await refused.get_attribute("aria-label")),
    )
    await expect(refused).to_have_class(re.compile("refused"))
    # As many elements as fit, however many rows; the newest flow first.
    assert 5 < await page.locator(".row").count() < 40
    assert int(str(await page.locator("#rows").get_attribute("aria-rowcount"))) == 500
    first = await page.locator(".row").first.get_attribute("data-n")
    places = await positions(page)
    shop.play(1)
    newest = f"Math.max(...[...document.querySelectorAll('.row')].map(row => row.dataset.n)) > {first}"
    await until(lambda: page.evaluate(newest))
    await until(lambda: page.evaluate("document.querySelector('#live span').textContent == 'Live'"))
    assert await positions(page) == places, "nothing moves because of more traffic"


async def positions(page: Page) -> Any:
    return await page.evaluate(
        "[...document.querySelectorAll('[data-party]')].map(e => [e.dataset.party, e.getAttribute('transform')]).sort()"
    )


async def test_filter(watched: Watched, shop: Scene) -> None:
    page = await opened(watched, shop)
    await page.keyboard.press("/")
    await page.keyboard.type("from:shop/recommendations verd")
    await expect(page.locator("#suggestions li")).to_have_text(re.compile("verdict:"))
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Enter")
    await page.keyboard.type("dropped")
    await page.keyboard.press("Enter")
    await expect(page.locator("[data-link]")).to_have_count(2)
    await expect(page.get_by_role("button", name="dropped", exact=True)).to_have_attribute(
        "aria-pressed", "true"
    )
    await expect(page.locator(".row.forwarded")).to_have_count(0)
    await page.get_by_role("button", name="dropped", exact=True).click()
    await expect(page.locator(".row.forwarded").first).to_be_visible()
    await page.locator("#filter").fill("prot:tcp")
    await page.keyboard.press("Enter")
    await expect(page.locator("#filter-error")).to_contain_text("did you mean proto?")
    await page.locator("#filter").fill("port:1")
    await page.keyboard.press("Enter")
    await expect(page.locator("#map-empty")).to_contain_text("Nothing passes the filter")


async def test_a_click_explains(watched: Watched, shop: Scene) -> None:
    page = await opened(watched, shop)
    await page.locator("#filter").fill("to:data/postgres verdict:dropped")
    await page.keyboard.press("Enter")
    await expect(page.locator("[data-link]")).to_have_count(1)
    await page.locator(".row.dropped", has_text="postgres").first.click()
    panel = page.get_by_role("complementary", name="Details")
    await expect(panel.get_by_role("heading")).to_have_text("recommendations → postgres")
    await expect(panel).to_contain_text("dropped: Policy denied")
    await expect(panel).to_contain_text("The policies deny it")
    await expect(panel).to_contain_text("data/postgres-clients default-deny")
    await expect(panel.locator("pre", has_text="kind: CiliumNetworkPolicy")).to_contain_text(
        "app: recommendations"
    )
    await panel.get_by_text("Everything the agent knows of it").click()
    await expect(panel.locator("pre").last).to_contain_text('"verdict": "DROPPED"')
    # A link of the map says who decides, and why.
    await page.locator(f"{REFUSED} .hit").click(force=True)
    await expect(panel).to_contain_text("Policy denied")
    await panel.get_by_role("button", name="Why?").click()
    await expect(panel).to_contain_text("Entering data/postgres")
    await panel.get_by_role("button", name="Close").click()
    await expect(panel).to_be_hidden()


async def test_keyboard_alone(watched: Watched, shop: Scene) -> None:
    page = await opened(watched, shop)
    await page.locator("[data-party='workload:shop/frontend']").focus()
    await page.keyboard.press("ArrowRight")
    assert str(await page.evaluate("document.activeElement.dataset.party")).startswith("workload:shop/")
    await page.keyboard.press("ArrowLeft")
    await page.keyboard.press("Enter")
    await expect(page.locator("#details h2")).to_have_text("frontend")
    await expect(page.locator("#details")).to_contain_text("Called by")
    assert "[object" not in await page.locator("#details").inner_text()
    await page.keyboard.press("Escape")
    await expect(page.locator("#details")).to_be_hidden()
    await page.locator("#rows").focus()
    for key in ("ArrowDown", "ArrowDown", "PageDown"):
        await page.keyboard.press(key)
    await expect(page.locator(".row[aria-selected='true']")).to_have_count(1)
    await expect(page.locator("#details h2")).to_contain_text("→")
    await page.keyboard.press("Escape")
    await page.keyboard.press("n")
    await expect(page.locator("[data-party='namespace:shop']")).to_be_visible()
    await page.keyboard.press("n")
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog", name="Keys and filters")).to_be_visible()


async def test_time_travel(watched: Watched, shop: Scene) -> None:
    page = await opened(watched, shop)
    await expect(page.locator("#timeline .bar-good").first).to_be_attached()
    await page.locator("#timeline").focus()
    for _ in range(3):
        await page.keyboard.press("PageUp")
    await expect(page.locator("#live")).to_have_attribute("aria-pressed", "false")
    await expect(page.locator("#range")).to_have_text(re.compile("[0-9:]{8} \N{EN DASH} [0-9:]{8}"))
    begin, end = str(await page.locator("#range").inner_text()).split(" \N{EN DASH} ")
    times = await page.locator(".row .when").all_inner_texts()
    assert times
    assert all(begin <= time <= f"{end}.999" for time in times)
    await page.keyboard.press("Escape")
    await expect(page.locator("#live")).to_have_attribute("aria-pressed", "true")
    await expect(page.locator("#range")).to_contain_text("since")


async def test_light_and_dark(watched: Watched, shop: Scene) -> None:
    page = await opened(watched, shop)
    light = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    await page.keyboard.press("t")
    dark = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert light == "rgb(245, 246, 248)"
    assert dark == "rgb(14, 17, 22)"
    await page.reload()
    assert await page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert await page.evaluate(CONTRAST) >= 4.5


#: The least contrast (WCAG 2) between the text of some elements and the surface that they stand on.
CONTRAST = """
Math.min(...['.row .when', '.row small', '.head span', '#counts', '.brand span', '.legend span'].map((one) => {
  const element = document.querySelector(one) ?? document.body;
  const light = (text) => {
    const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const surface = getComputedStyle(document.documentElement).getPropertyValue('--surface').trim();
  const hex = surface.match(/\\w\\w/g).map((c) => parseInt(c, 16));
  const [a, b] = [light(getComputedStyle(element).color), light(`rgb(${hex})`)].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
}))
"""


async def test_beyond_loopback_a_token_is_needed(watched: Watched, tmp_path: Any) -> None:
    (tmp_path / "token").write_text("correct-horse-battery\n")
    async with AgentKit(
        values=sections(listen="0.0.0.0:0", plaintext=True, token=str(tmp_path / "token"))
    ) as kit:
        page = watched.page
        await page.goto(address(kit))
        dialog = page.get_by_role("dialog", name="This page asks for a token")
        await expect(dialog).to_be_visible()
        await page.get_by_label("Token", exact=True).fill("wrong-horse-battery")
        await page.keyboard.press("Enter")
        await expect(dialog).to_contain_text("This is not the token.")
        await page.get_by_label("Token", exact=True).fill("correct-horse-battery")
        await page.keyboard.press("Enter")
        await expect(dialog).to_be_hidden()
        await expect(page.locator("#map-empty")).to_contain_text("It is quiet")
        (cookie,) = await page.context.cookies()
        assert cookie["httpOnly"]
        assert cookie["sameSite"] == "Strict"
        assert "horse" not in cookie["value"]
        # The address that `axoneme ui` prints needs nothing to be typed, and leaves no token behind.
        await page.context.clear_cookies()
        await page.goto("about:blank")
        await page.goto(address(kit) + "#token=correct-horse-battery")
        await expect(page.locator("#map-empty")).to_contain_text("It is quiet")
        assert page.url == address(kit)


async def test_what_flows_say_is_only_text(watched: Watched, shop: Scene) -> None:
    evil = "<img src=x onerror=alert(1)>\"'`${1}"
    shop.observer.add(
        [
            Flow(
                verdict="FORWARDED", Type="L7", event_type={"type": 129}, l4={"TCP": {"destination_port": 80}},
                IP={"source": "10.0.0.1", "destination": "10.0.0.2", "ipVersion": "IPv4"},
                source={"namespace": evil, "pod_name": evil, "labels": [evil]}, is_reply={"value": False},
                destination={"identity": 2, "labels": ["reserved:world"]}, destination_names=[evil],
                l7={"type": "REQUEST", "http": {"method": evil, "url": f"http://{evil}/"}},
            )
        ]
    )  # fmt: skip
    page = await opened(watched, shop)
    await page.locator(".row", has_text="onerror").first.click()
    await expect(page.locator("#details")).to_contain_text(evil)
    assert await page.locator("img").count() == 0


async def test_many_workloads_and_a_flood(watched: Watched, shop: Scene) -> None:
    """400 workloads and 30,000 flows a second: the browser gets what fits on a screen, and stays quick."""
    page = watched.page
    crowd(shop.observer, 400, 30_000)
    await page.goto(address(shop.kit))
    # So many are shown by namespace at first.
    await expect(page.locator("[data-party='namespace:team-3']")).to_be_visible()
    assert await page.locator("[data-party]").count() < 20
    for _ in range(3):
        crowd(shop.observer, 400, 30_000)
        await asyncio.sleep(0.1)
    await until(lambda: page.evaluate("document.querySelector('#counts').textContent.includes('k flows')"))
    await page.keyboard.press("n")
    await until(lambda: page.evaluate("document.querySelectorAll('[data-party]').length > 400"))
    spent = await page.evaluate(
        "new Promise(done => { const a = performance.now(); requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - a))) })"
    )
    assert spent < 5000, "it still draws"
    assert await page.locator(".row").count() < 40
