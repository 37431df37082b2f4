"""The live view of a session's page: screenshots and screencasts, where the setting allows them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from integration.pod.conftest import Pod
from support.standin import Phone, running
from wasession_api.v1alpha1 import DisconnectKind, Phase

Start = Callable[..., Awaitable[Pod]]
PATHS = ("/v1/screenshot", "/v1/screencast")
PATIENCE = 60.0  # seconds for what takes tenths of one, on a machine that is busy
BOUNDARY = b"--picture\r\n"
NOTICE = "<!DOCTYPE html><h1>Confirm it with your passkey</h1>"


class Ended(Exception):
    """There are no further pictures."""


class Viewer:
    """Somebody who looks at a screencast."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer
        self._begun = False

    async def next(self) -> bytes:
        """Return the next picture; raise ``Ended`` at the end of the stream."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._read()
        except (asyncio.IncompleteReadError, aiohttp.ClientError, RuntimeError):  # aiohttp's
            raise Ended from None

    async def _read(self) -> bytes:
        content = self.answer.content
        if not self._begun:
            assert await content.readexactly(len(BOUNDARY)) == BOUNDARY
            self._begun = True
        kind, length = await content.readline(), await content.readline()
        if not length:
            raise Ended
        assert kind == b"Content-Type: image/jpeg\r\n"
        size = int(length.removeprefix(b"Content-Length: "))
        assert await content.readline() == b"\r\n"
        picture = await content.readexactly(size)
        assert picture.startswith(b"\xff\xd8\xff")
        assert await content.readexactly(2 + len(BOUNDARY)) == b"\r\n" + BOUNDARY
        return picture

    async def last(self) -> None:
        """Look until the end, and raise what it is."""
        while True:
            await self.next()


@contextlib.asynccontextmanager
async def looking(pod: Pod) -> AsyncIterator[Viewer]:
    timeout = aiohttp.ClientTimeout(total=None, sock_read=PATIENCE)
    async with pod.http.get(pod.base + "/v1/screencast", timeout=timeout) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.headers["Content-Type"] == "multipart/x-mixed-replace; boundary=picture"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Accel-Buffering"] == "no"
        yield Viewer(answer)


async def until_logged(pod: Pod, message: str, count: int = 1) -> None:
    async with asyncio.timeout(PATIENCE):
        while pod.log.count(message) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # polling


@pytest.fixture(scope="module")
async def seen(chromium: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pod]:
    """Yield a Ready pod, whose page may be looked at. It detects a hung page sooner."""
    directory = tmp_path_factory.mktemp("seen") / "data"
    directory.mkdir()
    settings = {"answer_timeout": "3", "shutdown_timeout": "5", "reconnect_max_delay": "1"}
    async with running() as world:
        pod = Pod(world.url, directory, live_view="true", **settings)
        await pod.start()
        await Phone(world.url).scan(await pod.qr())
        await pod.ready()
        yield pod
        await pod.kill()


async def test_nobody_looks_by_default(start: Start) -> None:
    pod = await start()
    await pod.qr()
    for path in PATHS:
        problem = await pod.call("GET", path, 403)
        assert problem["title"] == "Live view off"
        assert "spec.browser.liveView" in problem["detail"]
    assert "screencast of the page" not in pod.log


async def test_a_page_that_nobody_knows(tmp_path: Path, start: Start) -> None:
    document = tmp_path / "document.html"
    document.write_text(NOTICE)
    async with running(document=document) as world:
        pod = await start(url=world.url, live_view="true")
        await pod.until(lambda report: report.phase == Phase.STARTING)
        async with asyncio.timeout(PATIENCE):
            while (answer := await pod.answer("GET", "/v1/screenshot")).status != 200:
                assert answer.status == 503
        assert answer.body.startswith(b"\x89PNG")
        async with looking(pod) as viewer:
            await viewer.next()


async def test_nothing_of_it_is_in_logs_and_reports(seen: Pod) -> None:
    async with looking(seen) as viewer:
        await viewer.next()
        report = json.dumps(await seen.call("GET", "/v1/state"))
    await until_logged(seen, "screencast of the page ended", seen.log.count("page begun"))
    assert "blocked a request" not in seen.log, "who looks at the page is no page of its own"
    for text in (report, seen.log):
        assert "/9j/" not in text  # JPEG in base64
        assert "iVBOR" not in text  # PNG


async def test_who_looks_last_sees_it(seen: Pod) -> None:
    async with looking(seen) as first:
        await first.next()
        async with looking(seen) as second:
            await second.next()
            with pytest.raises(Ended):
                await first.last()
            await seen.call("POST", "/v1/messages", 201, json={"to": "15550001111", "text": "x"})
            assert (await seen.answer("GET", "/v1/screenshot")).status == 200


async def test_a_viewer_who_vanishes(seen: Pod) -> None:
    before = seen.log.count("screencast of the page ended")
    async with looking(seen) as viewer:
        await viewer.next()
        assert viewer.answer.connection is not None
        assert viewer.answer.connection.transport is not None
        viewer.answer.connection.transport.abort()
    await until_logged(seen, "screencast of the page ended", before + 1)
    assert (await seen.call("GET", "/v1/state"))["phase"] == "Ready"


@pytest.mark.parametrize("how", ["crashes", "hangs"])
async def test_a_page_that_fails_is_replaced_all_the_same(seen: Pod, how: str) -> None:
    before = await seen.ready()
    async with looking(seen) as viewer:
        await viewer.next()
        renderer = seen.process_of("renderer")
        if how == "crashes":
            renderer.kill()
        else:
            renderer.suspend()
            async with looking(seen) as another:  # sees what the page has shown last
                await another.next()
                assert (await seen.answer("GET", "/v1/screenshot")).status == 200
                with pytest.raises(Ended):
                    await another.last()
        with pytest.raises(Ended):
            await viewer.last()
    report = await seen.until(
        lambda report: (
            report.phase is Phase.READY and report.last_disconnect != before.last_disconnect
        ),
        timeout=90,
    )
    assert report.last_disconnect is not None
    assert report.last_disconnect.kind is DisconnectKind.CRASH
    async with looking(seen) as viewer:
        await viewer.next()


async def test_a_pod_stops_while_somebody_looks(start: Start) -> None:
    pod = await start(live_view="true")
    await pod.qr()
    async with looking(pod) as viewer:
        await viewer.next()
        assert await pod.terminate() == 0
        with pytest.raises(Ended):
            await viewer.last()


async def test_a_head_request_begins_no_screencast(seen: Pod) -> None:
    before = seen.log.count("page begun")
    async with seen.http.head(seen.base + "/v1/screencast") as answer:
        assert answer.status == 405
    assert seen.log.count("page begun") == before
