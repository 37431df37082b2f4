"""A session that is stopped while it ends its login, as when its namespace is deleted."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable

from integration.pod.conftest import Pod
from support.standin import Phone

Start = Callable[..., Awaitable[Pod]]
GRACE = 15  # seconds beyond the shutdown timeout, after which kubelet kills the container


async def logging_out(pod: Pod, phone: Phone) -> asyncio.Task[None]:
    """Request a logout and return once it is under way."""
    await phone.scan(await pod.qr())
    await pod.ready()
    await phone.fault("silent", seconds=60)  # the page waits for three seconds, then logs out
    request = asyncio.create_task(pod.call("POST", "/v1/logout?request=r1"))
    while not (pod.directory / "logout.json").exists():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return request


def request_of(pod: Pod) -> dict[str, object]:
    record: dict[str, object] = json.loads((pod.directory / "logout.json").read_text())
    return record


async def test_a_stop_waits_until_a_logout_is_confirmed(start: Start, phone: Phone) -> None:
    pod = await start()
    request = await logging_out(pod, phone)
    assert pod.process is not None
    pod.process.send_signal(signal.SIGTERM)
    answer = await pod.answer("POST", "/v1/logout")
    assert answer.status == 503
    assert "shutting down" in answer.json["detail"]
    assert not request.done()
    await request
    assert await pod.process.wait() == 0
    assert request_of(pod) == {"request": "r1", "done": True}
    assert not (pod.directory / "login.json").exists()
    assert len(list(pod.directory.glob("session-sales.logged-out-*"))) == 1


async def test_a_logout_that_is_not_confirmed_delays_a_stop_within_the_grace_period(
    start: Start, phone: Phone
) -> None:
    shutdown_timeout = 3
    pod = await start(shutdown_timeout=str(shutdown_timeout), answer_timeout="60")
    await phone.scan(await pod.qr())
    await pod.ready()
    pod.process_of("renderer").suspend()
    request = asyncio.create_task(pod.call("POST", "/v1/logout?request=r1"))
    while not (pod.directory / "logout.json").exists():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert pod.process is not None
    pod.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(shutdown_timeout + GRACE):
        assert await pod.process.wait() == 0
    assert request_of(pod) == {"request": "r1", "done": False}
    assert (pod.directory / "login.json").exists(), "nothing shows that the login has ended"
    await asyncio.wait({request})
    assert request.exception() is not None
