"""A page that tries to navigate away or open pages, in a real Chromium without WhatsApp."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from prometheus_client import REGISTRY
from wasession_pod.browser.browser import Browser
from wasession_pod.settings import Settings
from wasession_pod.state.observation import PageEvent, PageUnavailable

NEW_WINDOW = "Object.assign(document.createElement('a'), {href: '%s', target: '_blank', rel: '%s'})"
ATTEMPTS = {
    "location": ("location.href = '{there}/location'", "navigation"),
    "redirect": ("location.href = '/redirect'", "navigation"),
    "form": ("const f = document.createElement('form'); f.action = '{there}/form';"
             "f.method = 'post'; document.body.append(f); f.submit()", "navigation"),
    "meta": ("document.head.innerHTML += "
             "'<meta http-equiv=refresh content=\"0;url={there}/meta\">'", "navigation"),
    "open": ("for (let i = 0; i < 20; i++) window.open('{there}/open')", "page"),
    "link": (f"document.body.appendChild({NEW_WINDOW % ('{there}/link', 'noopener')}).click()",
             "page"),
    "download": ("location.href = '/download'", "download"),
    "file": ("location.href = 'file:///etc/passwd'", None),
    "data": ("location.href = 'data:text/html,elsewhere'", None),
    "chrome": ("location.href = 'chrome://version'", None),
    "program": ("location.href = 'whatsapp://send?phone=1'", None),
}  # fmt: skip
PAGES = [{"type": "page"}]
IFRAME = (
    "const frame = document.createElement('iframe'); frame.src = '{there}/frame'; "
    "document.body.append(frame)"
)
EMITTING = """<script>
  window.__wasessionEmit?.(JSON.stringify({type: 'conn.logout_reason', reason: 'user_initiated'}));
  fetch('/emitted');
</script>"""

PREFETCH = """
  const rules = {prefetch: [{urls: ['{there}/prefetched'], eagerness: 'immediate'}]};
  const script = Object.assign(document.createElement('script'), {type: 'speculationrules'});
  script.textContent = JSON.stringify(rules);
  document.head.append(script);
  setTimeout(() => location.href = '{there}/prefetched', 2000)"""


class Site:
    """A server of pages that run a given script; it records its requests."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.script = ""
        self.there = ""
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        self.server = TestServer(application)

    @property
    def origin(self) -> str:
        return f"http://localhost:{self.server.port}"

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        match request.path:
            case "/redirect":
                raise web.HTTPFound(f"{self.there}/redirected")
            case "/download":
                return web.Response(
                    body=b"x", headers={"Content-Disposition": "attachment; filename=x"}
                )
            case "/frame":
                return web.Response(text=EMITTING, content_type="text/html")
        # The page reports that it is alive, before and after its attempt.
        alive = "setInterval(() => fetch('/alive'), 50)"
        attempt = f"onload = () => setTimeout(() => {{ {self.script} }}, 50)"
        page = f"<body><script>{alive}; {attempt}</script>"
        return web.Response(text=page, content_type="text/html")


@pytest.fixture
async def sites() -> AsyncIterator[tuple[Site, Site]]:
    here, there = Site(), Site()
    for site in (here, there):
        await site.server.start_server()
    here.there = there.origin
    yield here, there
    for site in (here, there):
        await site.server.close()


@pytest.fixture
async def events() -> list[PageEvent]:
    return []


@pytest.fixture
async def browser(
    sites: tuple[Site, Site], events: list[PageEvent], tmp_path: Path, chromium: Path
) -> AsyncIterator[Browser]:
    settings = Settings(
        client_id="sales",
        token="t",
        data_dir=tmp_path,
        whatsapp_url=sites[0].origin,
        chromium=chromium,
    )
    browser = Browser(settings, events.append)
    await browser.launch(tmp_path / "profile")
    yield browser
    await browser.close(10)


async def until(condition: Callable[[], object], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def until_one_page(browser: Browser) -> None:
    assert browser._chromium is not None
    session = browser._chromium.connection.browser
    async with asyncio.timeout(20):
        while True:
            targets = await session.call("Target.getTargets", filter=PAGES)
            if len(targets["targetInfos"]) == 1:
                return
            await asyncio.sleep(0.02)  # between two looks


def refused(kind: str) -> float:
    return REGISTRY.get_sample_value("wasession_pod_refused_total", {"kind": kind}) or 0


async def test_the_page_stays_where_it_is(
    browser: Browser, sites: tuple[Site, Site], events: list[PageEvent]
) -> None:
    here, there = sites
    for name, (script, kind) in ATTEMPTS.items():
        before = refused(kind) if kind else 0
        here.script = script.replace("{there}", there.origin)
        await browser.page.goto()
        if kind is not None:
            await until(lambda: refused(kind) > before)  # noqa: B023
        here.asked.clear()
        await until(lambda: here.asked.count("/alive") > 5)  # still in place, and alive
        expected = ("page.elsewhere", "page.load")
        assert [event for event in events if event.type not in expected] == [], name
        await until_one_page(browser)
        assert there.asked == [], name


async def test_a_page_that_navigates_away_without_a_request_is_reported(
    browser: Browser, sites: tuple[Site, Site], events: list[PageEvent]
) -> None:
    here, _ = sites
    here.script = "location.href = URL.createObjectURL(new Blob(['x'], {type: 'text/html'}))"
    await browser.page.goto()
    await until(lambda: any(event.type == "page.elsewhere" for event in events))


async def test_a_prefetched_document_of_another_origin_is_reported_and_not_heard(
    browser: Browser, sites: tuple[Site, Site], events: list[PageEvent]
) -> None:
    """Chromium requests it outside the page, and opens it without another request."""
    here, there = sites
    here.script = PREFETCH.replace("{there}", there.origin)
    await browser.page.goto()
    await until(lambda: any(event.type == "page.elsewhere" for event in events))
    assert "/prefetched" in there.asked
    browser.page._on_emit(browser.page._current_tab(), '{"type": "conn.logout_reason"}')
    assert {event.type for event in events} == {"page.load", "page.elsewhere"}


async def test_events_of_other_frames_are_ignored(
    browser: Browser, sites: tuple[Site, Site], events: list[PageEvent]
) -> None:
    here, there = sites
    here.script = IFRAME.replace("{there}", there.origin)
    await browser.page.goto()
    await until(lambda: "/emitted" in there.asked)
    # The bridge's own events are not.
    here.script = "WPP.emit('conn.qrcode_idle')"
    await browser.page.goto()
    await until(lambda: any(event.type == "conn.qrcode_idle" for event in events))
    assert [event.type for event in events if event.type != "page.load"] == ["conn.qrcode_idle"]


async def test_a_page_that_is_closed_is_reported(
    browser: Browser, sites: tuple[Site, Site], events: list[PageEvent]
) -> None:
    await browser.page.goto()
    [closed] = browser.page._pages
    assert browser._chromium is not None
    session = browser._chromium.connection.browser
    await session.call("Target.createTarget", url="about:blank", background=True)
    await session.call("Target.closeTarget", targetId=closed)
    await until(lambda: any(event.type == "page.close" for event in events))
    assert await browser.page.observe() is PageUnavailable.CLOSED
