"""Another wa-js than the image's, and a pinned document of WhatsApp Web, as files with a hash."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import psutil
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from integration.pod.conftest import Pod
from support.standin import Phone
from support.standin.server import Running
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import Phase, Reason
from wasession_pod.browser.browser import Browser
from wasession_pod.settings import DEVELOPMENT_WA_JS, Settings

Start = Callable[..., Awaitable[Pod]]
ME = "15551234567"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write(path: Path, content: bytes) -> str:
    """Write as kubelet does, and return the path."""
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    partial.rename(path)
    return str(path)


def because(reason: Reason) -> Callable[[Report], bool]:
    return lambda report: report.reason == reason


def has_browser(pod: Pod) -> bool:
    return any(_is_browser(process) for process in pod.family())


def _is_browser(process: psutil.Process) -> bool:
    try:
        return any(argument.startswith("--user-data-dir=") for argument in process.cmdline())
    except psutil.NoSuchProcess:
        return False


async def link(pod: Pod, phone: Phone) -> Report:
    await phone.scan(await pod.qr())
    return await pod.ready()


async def test_another_wa_js_and_what_happens_when_it_is_lost(
    start: Start, phone: Phone, tmp_path: Path
) -> None:
    newer = DEVELOPMENT_WA_JS.read_bytes().replace(b"wa-js v4.6.0", b"wa-js v4.6.1", 1)
    path = tmp_path / "wa-js"
    mounted = write(path, gzip.compress(newer))
    pod = await start(wa_js=mounted, wa_js_sha256=sha256(newer), reconnect_initial_delay="300")
    report = await link(pod, phone)
    assert report.wa_js is not None
    assert (report.wa_js.version, report.wa_js.sha256) == ("4.6.1", sha256(newer))
    assert report.warnings == []

    write(path, newer[:-100])
    report = await pod.until(lambda report: bool(report.warnings))
    assert [notice.reason for notice in report.warnings] == [Reason.WA_JS_INVALID]
    assert sha256(newer[:-100]) in report.warnings[0].message
    assert report.phase is Phase.READY, "the running browser has the right one"
    await pod.call("POST", "/v1/restart", 202)
    report = await pod.until(because(Reason.WA_JS_INVALID))
    assert report.phase is Phase.FAILED
    assert report.session_valid
    assert f"instead of {sha256(newer)}" in report.message
    path.unlink()
    await pod.until(lambda report: "does not exist" in report.message)
    assert not has_browser(pod)

    write(path, newer)
    report = await pod.ready()
    assert report.warnings == []
    assert len(await phone.devices(ME)) == 1, "the login is the same"


async def test_a_wa_js_that_does_not_run_leaves_the_login_alone(
    start: Start, phone: Phone, tmp_path: Path
) -> None:
    pod = await start()
    report = await link(pod, phone)
    assert report.wa_js is not None
    assert (report.wa_js.version, report.wa_js.sha256) == (
        "4.6.0",
        sha256(DEVELOPMENT_WA_JS.read_bytes()),
    )
    await pod.terminate()
    for script, reason, problem in (
        (b"404: Not Found", Reason.WA_JS_INVALID, "is not JavaScript: SyntaxError"),
        (b"throw new Error('of wa-js');", Reason.PAGE_INCOMPATIBLE, "it fails: Error: of wa-js"),
        (b"window.jQuery = {};", Reason.PAGE_INCOMPATIBLE, "it defines no WPP"),
    ):
        mounted = write(tmp_path / "wa-js", script)
        pod = await start(wa_js=mounted, wa_js_sha256=sha256(script))
        report = await pod.until(because(reason))
        assert problem in report.message
        assert report.phase is Phase.FAILED
        assert report.session_valid
        await pod.terminate()
    pod = await start()
    assert (await pod.ready()).restored


OLD_VERSION = "2.3000.1040000000"


async def pinned(world: Running) -> bytes:
    """Return the stand-in's document, as somebody has saved it, with an older version."""
    async with aiohttp.ClientSession() as http, http.get(world.url) as answer:
        document = await answer.text()
    old = f"Object.defineProperty(self, 'Debug', {{get: () => ({{VERSION: '{OLD_VERSION}'}})}});"
    assert document.count("__d_stub = [];") == 1
    return document.replace("__d_stub = [];", f"{old} __d_stub = [];").encode()


async def test_a_login_outlives_a_pinned_document(
    start: Start, phone: Phone, world: Running, tmp_path: Path
) -> None:
    pod = await start()
    report = await link(pod, phone)
    live = report.whatsapp_web_version
    assert live not in (None, OLD_VERSION)
    assert report.document_sha256 is None
    await pod.terminate()

    document = await pinned(world)
    mounted = write(tmp_path / "document", gzip.compress(document))
    pod = await start(document=mounted, document_sha256=sha256(document))
    await pod.ready()
    report = await pod.until(lambda report: report.whatsapp_web_version == OLD_VERSION)
    assert report.restored
    assert report.document_sha256 == sha256(document)
    assert report.warnings == []
    await phone.fault("outdated", ME)
    report = await pod.until(because(Reason.VERSION_REFUSED))
    assert "whatsappDocument" in report.message
    assert report.session_valid
    await pod.terminate()
    await phone.heal()  # only the pinned version is refused

    pod = await start()
    await pod.ready()
    report = await pod.until(lambda report: report.whatsapp_web_version == live)
    assert report.restored
    assert report.document_sha256 is None


async def test_no_browser_starts_without_the_pinned_document(
    start: Start, world: Running, tmp_path: Path
) -> None:
    """The live page in its place would be the one that somebody has pinned another one against."""
    document, page = await pinned(world), tmp_path / "document"
    pod = await start(
        document=str(page), document_sha256=sha256(document), reconnect_initial_delay="300"
    )
    report = await pod.until(because(Reason.DOCUMENT_INVALID))
    assert report.phase is Phase.FAILED
    assert f"{page}, whatsappDocument of the WhatsAppSessionClass) does not exist" in report.message
    write(page, document[:100])
    await pod.until(lambda report: sha256(document[:100]) in report.message)
    assert not has_browser(pod)
    write(page, document)
    await pod.qr()


# --- a service worker -----------------------------------------------------------------------------

WORKER = """
addEventListener('install', (event) => event.waitUntil(
  caches.open('x').then((cache) => cache.add('/')).then(() => skipWaiting())));
addEventListener('activate', (event) => event.waitUntil(clients.claim()));
addEventListener('fetch', (event) => {
  if (event.request.mode === 'navigate') event.respondWith(caches.match('/'));
});"""
LIVE = """<!DOCTYPE html><html><body><iframe src="/frame"></iframe>live<script nonce="fresh">
  navigator.serviceWorker.register('/sw.js').then(() => navigator.serviceWorker.ready)
    .then(() => fetch('/installed'));
</script></body></html>"""
PINNED = """<!DOCTYPE html><html><body><iframe src="/frame"></iframe>pinned
<script nonce="old1">document.title = 'ran';</script>
<script>document.title = 'ran without a nonce';</script></body></html>"""
POLICY = "script-src 'nonce-fresh'; worker-src 'self'"
SHOWN = """() => [document.body.innerText.trim(), document.title,
  document.querySelector('iframe')?.contentDocument.body.innerText]"""


INSTALLED = web.AppKey("installed", asyncio.Event)


@pytest.fixture
async def site() -> AsyncIterator[TestServer]:
    """Serve a page with a service worker that answers for the document, as a PWA's may."""
    installed = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        match request.path:
            case "/installed":
                installed.set()
            case "/sw.js":
                return web.Response(text=WORKER, content_type="text/javascript")
            case "/frame":
                return web.Response(text="<body>frame", content_type="text/html")
            case "/":
                headers = {"Content-Security-Policy": POLICY}
                return web.Response(text=LIVE, content_type="text/html", headers=headers)
        return web.Response()

    application = web.Application()
    application[INSTALLED] = installed
    application.router.add_route("*", "/{path:.*}", answer)
    server = TestServer(application)
    await server.start_server()
    yield server
    await server.close()


async def test_a_service_worker_does_not_answer_in_place_of_the_pinned_document(
    site: TestServer, tmp_path: Path, chromium: Path
) -> None:
    async def shown(browser: Browser, text: str) -> list[str]:
        """Wait for a document, and return what it shows, its title and what its frame shows."""
        async with asyncio.timeout(20):
            while True:
                seen = await browser.page._current_tab().evaluate(
                    f"() => document.readyState === 'complete' ? ({SHOWN})() : null"
                )
                if isinstance(seen, list) and text in seen[0]:
                    return seen
                await asyncio.sleep(0.02)  # between two looks

    def browser(**given: str) -> Browser:
        own = {"client_id": "sales", "token": "t", "data_dir": tmp_path, "chromium": chromium}
        url = f"http://localhost:{site.port}"
        return Browser(
            Settings.model_validate({**own, "whatsapp_url": url, **given}), lambda _: None
        )

    live = browser()
    await live.launch(tmp_path / "profile")
    await live.page.goto()
    async with asyncio.timeout(20):
        await site.app[INSTALLED].wait()
    await live.page.reload()
    assert await shown(live, "live")
    await live.close(10)

    path = write(tmp_path / "document", PINNED.encode())
    pinned = browser(document=path, document_sha256=sha256(PINNED.encode()))
    await pinned.launch(tmp_path / "profile")
    await pinned.page.goto()
    assert await shown(pinned, "pinned") == ["pinned", "ran", "frame"]
    tab, scripts = pinned.page._current_tab(), pinned.page._scripts
    assert scripts is not None
    scripts.unwatch()  # as once the page is Ready
    await tab.evaluate("() => { document.body.innerText = ''; location.reload(); }")
    assert await shown(pinned, "pinned") == ["pinned", "ran", "frame"]
    await pinned.close(10)

    again = browser()
    await again.launch(tmp_path / "profile")
    await again.page.goto()
    assert await shown(again, "live")
    await again.close(10)
