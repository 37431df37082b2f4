"""The site in a real Chromium: it asks nobody but its own server, and its search works."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Request, Route, async_playwright, expect
from support.documentation import build_site
from support.testbed import ROOT

PATIENCE = 20_000  # milliseconds


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Build the site as it is published, with a repository, and serve it."""
    folder = tmp_path_factory.mktemp("site")
    done = build_site(ROOT / "mkdocs.yml", folder)
    assert done.returncode == 0, done.stderr
    handler = functools.partial(Silent, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


async def test_nobody_else_is_asked(address: str, chromium: Path) -> None:
    elsewhere, failed, errors = list[str](), list[str](), list[str]()

    async def refuse(route: Route) -> None:
        elsewhere.append(route.request.url)
        await route.abort()

    def ended(request: Request) -> None:
        failed.append(request.url)

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = await browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("requestfailed", ended)
        page.on("pageerror", lambda error: errors.append(str(error)))
        await page.route(lambda url: url.startswith("http") and not url.startswith(address), refuse)
        for name in ("index", "concepts", "kubectl-plugin", "backup", "reference/gateway-api"):
            answer = await page.goto(f"{address}/{name}.html", wait_until="networkidle")
            assert answer is not None
            assert answer.status == 200
            for image in await page.locator("article img").all():
                assert await image.evaluate("image => image.decode().then(() => image.width > 100)")
        await page.goto(f"{address}/index.html")
        box = page.get_by_role("textbox", name="Search")
        await box.click()
        ready = page.locator(".md-search-result__meta")
        await expect(ready).to_have_text("Type to start searching", timeout=PATIENCE)
        await box.press_sequentially("fence")
        result = page.locator(".md-search-result__link").first
        await expect(result).to_be_visible(timeout=PATIENCE)
        assert "backup.html" in (await result.get_attribute("href") or "")
        await browser.close()
    assert (elsewhere, failed, errors) == ([], [], [])
