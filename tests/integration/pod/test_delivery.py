"""Nothing is lost and nothing told twice, whatever dies; history and files of chats."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from integration.pod.conftest import Linked, Pod
from support.standin import Media, Phone

Start = Callable[..., Awaitable[Pod]]
ME, FRIEND = "15551234567", "15550001111"
JSON = {"Accept": "application/json"}


async def page(pod: Pod, **query: Any) -> Any:
    return await pod.call("GET", "/v1/events", params=query, headers=JSON)


async def events(pod: Pod, after: str | None, types: str = "message") -> tuple[list[Any], str]:
    """Return all events after a cursor, and the cursor after them."""
    result = []
    while True:
        query = {"types": types} | ({} if after is None else {"after": after})
        part = await page(pod, **query)
        result += part["items"]
        after = part["next"]
        if not part["more"]:
            return result, str(after)


def texts(of: list[Any]) -> list[str]:
    return [event["data"].get("text") or event["data"]["reason"] for event in of]


async def until_told(pod: Pod, after: str | None, last: str) -> list[Any]:
    """Wait for a message, and return all from the cursor on."""
    async with asyncio.timeout(60):
        while True:
            told, following = await events(pod, after)
            if last in texts(told):
                return told
            await page(pod, after=following, types="message", wait=10)


async def link(pod: Pod, phone: Phone) -> None:
    await phone.scan(await pod.qr())
    await pod.ready()


def freeze(pod: Pod) -> None:
    """Let the pod's own process do nothing any more; its browser goes on."""
    assert pod.process is not None
    os.kill(pod.process.pid, signal.SIGSTOP)


async def until_on_disk(pod: Pod, text: str) -> None:
    """Wait until the page has stored a message."""
    profile = pod.directory / "session-sales" / "Default" / "IndexedDB"
    async with asyncio.timeout(20):
        while not await asyncio.to_thread(_stored, profile, text.encode()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def _stored(directory: Path, text: bytes) -> bool:
    return any(text in path.read_bytes() for path in directory.rglob("*.log"))


# --- cursors --------------------------------------------------------------------------------------


async def test_pages_and_streams_have_the_same_events(linked: Linked) -> None:
    start = (await page(linked.pod))["next"]
    for text in ("one", "two", "three"):
        await linked.phone.send(FRIEND, ME, text)
    told = await until_told(linked.pod, start, "three")
    assert texts(told) == ["one", "two", "three"]
    async with linked.pod.stream("message", start) as stream:
        streamed = [await anext(stream) for _ in range(3)]
    assert [event.id for event in streamed] == [event["id"] for event in told]
    assert [event.json for event in streamed] == [event["data"] for event in told]
    first = await page(linked.pod, after=start, limit=1, types="message")
    assert (texts(first["items"]), first["more"]) == (["one"], True)
    assert texts((await page(linked.pod, after=first["next"]))["items"])[0] == "two"


async def test_a_page_waits_for_an_event(linked: Linked) -> None:
    start = (await events(linked.pod, None))[1]
    waiting = asyncio.create_task(page(linked.pod, after=start, types="message", wait=60))
    await linked.phone.send(FRIEND, ME, "waited for")
    async with asyncio.timeout(30):
        assert texts((await waiting)["items"]) == ["waited for"]


@pytest.mark.parametrize(
    "query", [{"after": "x"}, {"after": "5c1f0e7a-"}, {"limit": 0}, {"limit": 501}, {"wait": 61}]
)
async def test_bad_queries_are_refused(linked: Linked, query: dict[str, Any]) -> None:
    answer = await linked.pod.answer("GET", "/v1/events", params=query, headers=JSON)
    assert answer.status == 422


# --- what dies ------------------------------------------------------------------------------------


async def test_what_the_page_has_stored_before_a_kill_is_told(start: Start, phone: Phone) -> None:
    """The page has stored and confirmed a message, but the pod dies before it hears of it."""
    pod = await start()
    await link(pod, phone)
    await phone.send(FRIEND, ME, "told")
    cursor = (await until_told(pod, None, "told"))[-1]["id"]
    freeze(pod)
    await phone.send(FRIEND, ME, "stored alone")
    await until_on_disk(pod, "stored alone")
    await pod.kill()
    await phone.send(FRIEND, ME, "while it was down")
    again = await start()
    await again.ready()
    missed = await until_told(again, cursor, "while it was down")
    assert texts(missed) == ["stored alone", "while it was down"]
    assert await again.metric("wasession_pod_events_reconciled_total") >= 1
    await again.terminate()
    third = await start()
    await third.ready()
    await phone.send(FRIEND, ME, "last")
    told = await until_told(third, cursor, "last")
    assert [event["id"] for event in told[:2]] == [event["id"] for event in missed]
    assert texts(told) == ["stored alone", "while it was down", "last"]


@pytest.mark.parametrize("confirm", ["stored", "never"])
async def test_kills_at_any_moment_lose_nothing(start: Start, phone: Phone, confirm: str) -> None:
    """Messages come all the time; each is told once, in order, under one ID."""
    await phone.behave(confirm=confirm)
    pod, chance = await start(), random.Random(7)  # noqa: S311
    await link(pod, phone)
    begun = (await page(pod))["next"]
    sent: list[str] = []

    async def send() -> None:
        while True:
            await phone.send(FRIEND, ME, f"{len(sent)}")
            sent.append(f"{len(sent)}")
            await asyncio.sleep(0.05)

    sending = asyncio.create_task(send())
    seen: dict[str, str] = {}
    try:
        for _ in range(4):
            await asyncio.sleep(chance.uniform(0, 1.5))
            for event in (await events(pod, begun))[0]:
                assert seen.setdefault(event["id"], event["data"]["text"]) == event["data"]["text"]
            freeze(pod)  # so that the page stores some that the pod does not hear of
            await asyncio.sleep(chance.uniform(0, 0.5))
            await pod.kill()
            pod = await start()
            await pod.ready()
    finally:
        sending.cancel()
        await asyncio.wait({sending})
    await phone.send(FRIEND, ME, "the end")
    told = await until_told(pod, begun, "the end")
    known = texts(told)
    assert known == [*sent, *known[len(sent) : -1], "the end"]
    assert len(known) <= len(sent) + 2, "the last one may have been sent without an answer"
    assert seen.items() <= {event["id"]: event["data"]["text"] for event in told}.items()


async def test_a_browser_that_crashes_loses_nothing(start: Start, phone: Phone) -> None:
    pod = await start()
    await link(pod, phone)
    begun = (await page(pod))["next"]
    await phone.send(FRIEND, ME, "before")
    await until_told(pod, begun, "before")
    pod.process_of("browser").kill()
    await phone.send(FRIEND, ME, "meanwhile")
    await pod.until(lambda report: report.phase == "Restoring")
    await pod.ready()
    await phone.send(FRIEND, ME, "after")
    assert texts(await until_told(pod, begun, "after")) == ["before", "meanwhile", "after"]


async def test_messages_of_the_session_itself_are_no_events_later(
    start: Start, phone: Phone
) -> None:
    pod = await start()
    await link(pod, phone)
    sent = await pod.call("POST", "/v1/messages", 201, json={"to": FRIEND, "text": "its own"})
    await pod.kill()
    again = await start()
    await again.ready()
    await phone.send(FRIEND, ME, "an answer")
    told = await until_told(again, None, "an answer")
    assert texts(told) == ["an answer"]
    acks, _ = await events(again, None, "ack")
    assert {event["data"]["id"] for event in acks} == {sent["id"]}


async def test_acks_that_came_while_the_pod_was_down(start: Start, phone: Phone) -> None:
    await phone.behave(auto_delivery=False)
    pod = await start()
    await link(pod, phone)
    sent = await pod.call("POST", "/v1/messages", 201, json={"to": FRIEND, "text": "hello"})
    await pod.kill()
    await phone.deliver(sent["id"].rpartition("_")[2])
    await phone.read(sent["id"].rpartition("_")[2])
    again = await start()
    await again.ready()
    async with asyncio.timeout(30):
        after, levels = None, list[int]()
        while 3 not in levels:
            told, after = await events(again, after, "ack")
            levels += [event["data"]["ack"] for event in told]
            await page(again, after=after, types="ack", wait=0.2)
    assert levels == sorted(set(levels))


async def test_history_from_before_linking_is_not_told(start: Start, phone: Phone) -> None:
    first = await start("first")
    await link(first, phone)
    await phone.send(FRIEND, ME, "long ago")
    await until_told(first, None, "long ago")
    second = await start("second")
    await link(second, phone)
    await phone.send(FRIEND, ME, "now")
    assert texts(await until_told(second, None, "now")) == ["now"]
    await second.terminate()
    again = await start("second")
    await again.ready()
    await phone.send(FRIEND, ME, "later")
    assert texts(await until_told(again, None, "later")) == ["now", "later"]


# --- chats and files ------------------------------------------------------------------------------


async def test_the_history_of_a_chat_in_pages(linked: Linked) -> None:
    friend = "15550007777"
    start = (await events(linked.pod, None))[1]
    for number in range(5):
        await linked.phone.send(friend, ME, f"{number}")
    await until_told(linked.pod, start, "4")
    path, found, more = f"/v1/chats/{friend}@c.us/messages", list[Any](), dict[str, str]()
    while True:
        part = await linked.pod.call("GET", path, params={"limit": 2, **more})
        assert len(part["items"]) <= 2
        found += part["items"]
        if "continue" not in part:
            break
        more = {"continue": part["continue"]}
    assert [message["text"] for message in found] == ["4", "3", "2", "1", "0"]
    assert found[0]["chatId"] == f"{friend}@c.us"
    by_number = await linked.pod.call("GET", f"/v1/chats/{friend}/messages")
    assert by_number["items"] == found


@pytest.mark.parametrize("query", ["limit=0", "continue=x", "continue=e30", "more=1"])
async def test_bad_pages_of_history_are_refused(linked: Linked, query: str) -> None:
    path = f"/v1/chats/{FRIEND}@c.us/messages?{query}"
    assert (await linked.pod.answer("GET", path)).status == 422


CONTENT = bytes(range(256)) * 4000


async def send_file(linked: Linked, content: bytes) -> tuple[str, str]:
    """Send a file to the session; return its path and the stand-in's ID of the message."""
    start = (await events(linked.pod, None))[1]
    media = Media(kind="document", mime_type="application/pdf", file_name="a.pdf")
    sent = await linked.phone.send(FRIEND, ME, media=media, content=content)
    async with asyncio.timeout(30):
        while not (
            found := (await page(linked.pod, after=start, types="message", wait=10))["items"]
        ):
            pass
    return f"/v1/messages/{found[0]['data']['id']}/media", sent


async def test_a_file_comes_decrypted_and_in_parts(linked: Linked) -> None:
    path, _ = await send_file(linked, CONTENT)
    whole = await linked.pod.answer("GET", path)
    assert (whole.status, whole.body) == (200, CONTENT)
    assert whole.headers["Content-Type"] == "application/pdf"
    assert whole.headers["Content-Disposition"] == "attachment"
    part = await linked.pod.answer("GET", path, headers={"Range": "bytes=1000000-1000009"})
    assert (part.status, part.body) == (206, CONTENT[1_000_000:1_000_010])
    outside = await linked.pod.answer("GET", path, headers={"Range": f"bytes={len(CONTENT)}-"})
    assert outside.status == 416
    tag = {"If-None-Match": whole.headers["ETag"]}
    async with linked.pod.http.get(linked.pod.base + path, headers=tag) as answer:
        assert answer.status == 304


async def test_a_file_that_whatsapp_has_deleted(linked: Linked) -> None:
    path, sent = await send_file(linked, b"short-lived")
    await linked.phone.expire_file(sent)
    assert (await linked.pod.answer("GET", path)).status == 410


async def test_a_message_without_a_file(linked: Linked) -> None:
    start = (await events(linked.pod, None))[1]
    await linked.phone.send(FRIEND, ME, "no file")
    [told] = await until_told(linked.pod, start, "no file")
    answer = await linked.pod.answer("GET", f"/v1/messages/{told['data']['id']}/media")
    assert answer.status == 404
