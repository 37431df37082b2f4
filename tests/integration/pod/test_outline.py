"""``GET /v1/page``: what the page shows, and what of it is private."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from integration.pod.conftest import Linked, Pod, one_pod
from support.standin import Phone, running
from wasession_api.v1alpha1 import Phase
from wasession_pod.browser import processes
from wasession_pod.browser.outline import DIALOGS_ALONE, NO_DIALOG, NO_TEXT

Start = Callable[..., Awaitable[Pod]]
NOTICE = "<h1>WhatsApp works with another browser</h1>"
DIALOG = "<div role=dialog>Accept the new terms? <button>Accept</button></div>"
DIALOG_AS_TEXT = '- dialog:\n  - text: Accept the new terms?\n  - button "Accept"'


async def outline(pod: Pod) -> str:
    answer = await pod.answer("GET", "/v1/page")
    assert answer.status == 200, answer.body
    assert answer.headers["Cache-Control"] == "no-store"
    return answer.body.decode()


async def outline_of(document: str, tmp_path: Path) -> str:
    """Return the outline of a page in place of WhatsApp Web."""
    file = tmp_path / "document.html"
    file.write_text(f"<!DOCTYPE html><meta charset=utf-8>{document}")
    async with running(document=file) as world, one_pod(world.url, tmp_path) as pod:
        await pod.until(lambda report: report.phase == Phase.STARTING)
        async with asyncio.timeout(60):
            while True:
                answer = await pod.answer("GET", "/v1/page")
                if answer.status == 200 and (text := answer.body.decode()) != NO_TEXT:
                    return text  # else it is loading
                assert answer.status in (200, 503)


async def test_a_page_that_nobody_knows(tmp_path: Path, chromium: Path) -> None:
    text = await outline_of(NOTICE + DIALOG, tmp_path)
    assert text == f'- heading "WhatsApp works with another browser" [level=1]\n{DIALOG_AS_TEXT}'


async def test_of_a_page_with_chats_dialogs_alone(tmp_path: Path, chromium: Path) -> None:
    chats = "<div id=pane-side>a chat</div><div role=dialog><div id=main>another</div></div>"
    text = await outline_of(NOTICE + chats + DIALOG, tmp_path)
    assert text == DIALOGS_ALONE + DIALOG_AS_TEXT


async def test_a_page_with_a_qr_and_not_its_content(waiting: Pod) -> None:
    code = (await waiting.call("GET", "/v1/pairing"))["code"]
    text = await outline(waiting)
    assert not any(part in text for part in code.split(","))
    assert "blocked a request" not in waiting.log, "who looks at the page is no page of its own"


async def test_with_a_login_dialogs_alone(start: Start, phone: Phone) -> None:
    pod = await start()
    await phone.scan(await pod.qr())
    await pod.ready()
    await phone.fault("refuse", seconds=600)
    await phone.fault("drop")
    await pod.until(lambda report: report.phase != Phase.READY)
    assert await outline(pod) == DIALOGS_ALONE + NO_DIALOG


async def test_a_ready_page_is_private_and_starts_no_driver(linked: Linked) -> None:
    problem = await linked.pod.call("GET", "/v1/page", 409)
    assert (problem["title"], problem["phase"]) == ("Page private", "Ready")
    await linked.pod.call("GET", "/v1/chats")
    async with linked.pod.http.get(linked.pod.base + "/v1/screenshot") as answer:
        assert answer.status == 200
    assert not any(processes.kind(child) == "driver" for child in linked.pod.family())


async def test_a_page_with_a_pairing_code_is_private(start: Start) -> None:
    pod = await start(pairing_method="PairingCode", phone_number="15551234567")
    code = await pod.qr()
    problem = await pod.call("GET", "/v1/page", 409)
    assert problem["title"] == "Page private"
    assert code not in problem["detail"]


@pytest.mark.parametrize("end", ["terminate", "terminate while it hangs", "kill"])
async def test_the_driver_ends_with_the_process(start: Start, end: str) -> None:
    pod = await start()
    await pod.qr()
    await outline(pod)
    driver = pod.process_of("driver")
    if end == "kill":
        assert pod.process is not None
        pod.process.kill()
        await pod.process.wait()
    else:
        if end != "terminate":
            driver.suspend()
        assert await pod.terminate() == 0
    await asyncio.to_thread(driver.wait, timeout=60)
