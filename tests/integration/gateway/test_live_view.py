"""The live view through the gateway: who may look, what passes, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from integration.gateway.conftest import Start
from integration.gateway.fakes import Pod
from integration.gateway.replica import Replica, token, until
from integration.gateway.test_audit import lines
from wasession_gateway import rest

SCREENSHOT, SCREENCAST = (
    f"/whatsapp/sessions/sales/{name}?owner=alice" for name in ("screenshot", "screencast")
)
BOUNDARY = b"--picture\r\n"
PATIENCE = 30.0  # seconds for what takes hundredths of one, on a machine that is busy


@pytest.fixture
def seen(pod: Pod) -> Pod:
    """The pod of alice's session, whose page may be looked at."""
    pod.live_view = True
    return pod


@contextlib.asynccontextmanager
async def looking(gateway: Replica, **claims: Any) -> AsyncIterator[aiohttp.ClientResponse]:
    await gateway.caught_up()
    headers = {"Authorization": f"Bearer {token('root', role='admin', **claims)}"}
    async with gateway.http.get(SCREENCAST, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        assert await answer.content.readexactly(len(BOUNDARY)) == BOUNDARY
        yield answer


async def picture(answer: aiohttp.ClientResponse) -> bytes:
    """Return the next picture; raise ``IncompleteReadError`` at the end."""
    async with asyncio.timeout(PATIENCE):
        head = await answer.content.readuntil(b"\r\n\r\n")
        if not head:
            raise asyncio.IncompleteReadError(b"", 1)
        length = int(head.partition(b"Content-Length: ")[2])
        shown = await answer.content.readexactly(length)
        await answer.content.readexactly(2 + len(BOUNDARY))
    return shown


async def last(answer: aiohttp.ClientResponse) -> None:
    """Look until the end, and raise what it is."""
    while True:
        await picture(answer)


async def ends(answer: aiohttp.ClientResponse) -> None:
    with pytest.raises(asyncio.IncompleteReadError):
        await last(answer)


# --- who may look ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "claims", "status"),
    [
        ("alice", {}, 403),  # her own page
        ("mallory", {}, 403),
        ("alice", {"scope": "pair messages:read"}, 403),
        ("root", {"role": "admin", "scope": "sessions:read messages:read"}, 403),
        ("root", {"role": "admin", "scope": "pair"}, 403),
        ("root", {"scope": "admin"}, 200),
        ("root", {"role": "admin"}, 200),
        ("root", {"role": "admin", "scope": "messages:read pair"}, 200),
    ],
)
async def test_admins_who_may_read_and_link(
    gateway: Replica, seen: Pod, who: str, claims: dict[str, Any], status: int
) -> None:
    await gateway.caught_up()
    seen.torn = True  # a screencast ends at once
    headers = {"Authorization": f"Bearer {token(who, **claims)}"}
    for path in (SCREENSHOT, SCREENCAST, SCREENSHOT.partition("?")[0]):
        async with gateway.http.get(path, headers=headers) as answer:
            assert answer.status == status
            assert status == 200 or seen.picture not in await answer.read()
    assert bool(seen.asked) is (status == 200)


async def test_nobody_looks_where_it_is_off(
    gateway: Replica, pod: Pod, caplog: pytest.LogCaptureFixture
) -> None:
    for path in (SCREENSHOT, SCREENCAST):
        problem = await gateway.ask("root", "GET", path, 403, claims={"role": "admin"})
        assert problem["title"] == "Live view off"
    assert [(line["action"], line["outcome"]) for line in lines(caplog)] == [
        ("getScreenshot", "denied"),
        ("getScreencast", "denied"),
    ]


# --- what passes ----------------------------------------------------------------------------------


async def test_a_screenshot(gateway: Replica, seen: Pod) -> None:
    await gateway.caught_up()
    headers = {"Authorization": f"Bearer {token('root', role='admin')}"}
    async with gateway.http.get(SCREENSHOT, headers=headers) as answer:
        assert await answer.read() == seen.picture
    assert answer.content_type == "image/png"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "X-Internal" not in answer.headers


async def test_each_picture_at_once(gateway: Replica, seen: Pod) -> None:
    async with looking(gateway) as answer:
        assert answer.headers["Content-Type"] == "multipart/x-mixed-replace; boundary=picture"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Accel-Buffering"] == "no"
        assert "X-Internal" not in answer.headers
        assert await picture(answer) == seen.picture
        seen.show(b"another")
        async with asyncio.timeout(PATIENCE):
            while await picture(answer) != b"another":
                pass


@pytest.mark.parametrize("kind", ["text/html", "image/svg+xml"])
async def test_a_pod_that_sends_something_else(gateway: Replica, seen: Pod, kind: str) -> None:
    seen.picture_type = kind
    for path in (SCREENSHOT, SCREENCAST):
        problem = await gateway.ask("root", "GET", path, 502, claims={"role": "admin"})
        assert problem["title"] == "No picture"
    await until(lambda: seen.viewers == 0)


# --- the audit log --------------------------------------------------------------------------------


async def test_a_screencast_is_audited_when_it_begins(
    gateway: Replica, seen: Pod, caplog: pytest.LogCaptureFixture
) -> None:
    async with looking(gateway, jti="t-1") as answer:
        [line] = lines(caplog)
        assert (line["action"], line["outcome"], line["status"]) == ("getScreencast", "ok", 200)
        assert (line["subject"], line["admin"], line["tokenId"]) == ("root", True, "t-1")
        assert (line["session"], line["requestId"]) == ("sales", answer.headers["X-Request-ID"])
        await picture(answer)
    await until(lambda: seen.viewers == 0)
    assert lines(caplog) == [], "once"


# --- how it ends ----------------------------------------------------------------------------------


async def test_a_pod_that_ends_it(gateway: Replica, seen: Pod) -> None:
    async with looking(gateway) as answer:
        await picture(answer)
        seen.torn = True
        await ends(answer)


async def test_a_viewer_who_leaves(gateway: Replica, seen: Pod) -> None:
    async with looking(gateway) as answer:
        await picture(answer)
        assert seen.viewers == 1
    await until(lambda: seen.viewers == 0)
    await gateway.ask("alice", "GET", "/whatsapp/sessions/sales")


async def test_a_viewer_who_does_not_read_slows_the_pod_down(gateway: Replica, seen: Pod) -> None:
    """The pictures that fill the buffers of the sockets on the way are all that is sent."""
    seen.picture = bytes(2**22)
    async with looking(gateway):
        before = 0
        while before != seen.shown or not before:
            before = seen.shown
            await asyncio.sleep(1.0)  # in which ten would follow
        assert seen.shown * len(seen.picture) < 64 * 2**20
    await until(lambda: seen.viewers == 0)


async def test_a_token_that_expires(gateway: Replica, seen: Pod) -> None:
    leeway = gateway.settings.jwt_leeway.total_seconds()
    async with looking(gateway, exp=time.time() - leeway + 2) as answer:
        await ends(answer)
    await until(lambda: seen.viewers == 0)


async def test_a_pod_that_never_ends_it(
    gateway: Replica, seen: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest, "SCREENCAST_LIMIT", 0.5)
    async with looking(gateway) as answer:
        await ends(answer)
    await until(lambda: seen.viewers == 0)


async def test_a_gateway_that_shuts_down(start: Start, seen: Pod) -> None:
    gateway = await start(shutdown_timeout="60s")
    async with looking(gateway) as answer:
        await picture(answer)
        async with asyncio.timeout(PATIENCE):
            await gateway.stop()
        with pytest.raises((asyncio.IncompleteReadError, aiohttp.ClientError, RuntimeError)):
            await last(answer)
