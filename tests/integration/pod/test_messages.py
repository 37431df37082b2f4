"""Sending: texts, replies and files, and each message once whatever fails."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from integration.pod.conftest import TOKEN, Answer, Linked, Pod
from support.standin import Media, Phone
from support.standin.world import FIRST_GROUP, Message

Start = Callable[..., Awaitable[Pod]]
ME = "15551234567"
PNG = b"\x89PNG\r\n\x1a\n" + b"picture" * 8
PDF = b"%PDF-1.7\n" + b"document" * 8


@pytest.fixture
def friend(numbers: Iterator[str]) -> str:
    """Return a contact that no other test writes to."""
    return next(numbers)


@pytest.fixture(scope="module")
def numbers() -> Iterator[str]:
    return (f"1555{number:07}" for number in range(1_000_000, 2_000_000))


async def received(phone: Phone, chat: str) -> list[Message]:
    """Return what a chat has received from the session."""
    return [message for message in await phone.messages() if message.to == chat]


def form(to: str, content: Any, **fields: str | None) -> aiohttp.FormData:
    """Return a form with a file; ``mime`` is its content type, ``name`` its file name."""
    data = aiohttp.FormData(quote_fields=False)  # as browsers and curl write names
    data.add_field("to", to)
    for name in ("caption", "replyTo", "type"):
        if (value := fields.get(name)) is not None:
            data.add_field(name, value)
    data.add_field(
        "file", content, content_type=fields.get("mime"), filename=fields.get("name") or "file"
    )
    return data


async def text(
    pod: Pod, to: str, body: str = "hello", key: str | None = None, **more: str
) -> Answer:
    headers = {"Idempotency-Key": key} if key else {}
    return await pod.answer(
        "POST", "/v1/messages", json={"to": to, "text": body, **more}, headers=headers
    )


# --- what is sent ---------------------------------------------------------------------------------


@pytest.mark.parametrize("recipient", ["{}", "+{}", "{}@c.us"])
async def test_a_text_to_a_person(linked: Linked, friend: str, recipient: str) -> None:
    response = await text(linked.pod, recipient.format(friend), "good morning ☀")
    assert response.status == 201
    sent = response.json
    assert sent["to"] == f"{friend}@c.us"
    assert sent["ack"] >= 1
    [message] = await received(linked.phone, f"{friend}@c.us")
    assert sent["id"] == f"true_{friend}@c.us_{message.id}"
    assert (message.sender, message.text) == (f"{ME}@c.us", "good morning ☀")
    status = await linked.pod.call("GET", response.headers["Location"])
    assert (status["id"], status["fromMe"], status["text"]) == (sent["id"], True, "good morning ☀")
    assert status["ack"] >= 1


@pytest.mark.parametrize("to", [FIRST_GROUP, None])
async def test_a_text_to_a_group_and_to_a_hidden_number(linked: Linked, to: str | None) -> None:
    to = to or await linked.phone.add_person(None)
    sent = (await text(linked.pod, to)).json
    assert sent["to"] == to
    [message] = await received(linked.phone, to)
    status = await linked.pod.call("GET", f"/v1/messages/{quote(sent['id'], safe='@')}")
    assert status["chatId"] == to
    assert message.text == "hello"


async def test_the_longest_text(linked: Linked, friend: str) -> None:
    body = "\N{GRINNING FACE}" * 65536
    assert (await text(linked.pod, friend, body)).status == 201
    [message] = await received(linked.phone, f"{friend}@c.us")
    assert message.text == body
    assert (await text(linked.pod, friend, body + "!")).status == 422


async def test_a_text_of_white_space_is_refused(linked: Linked, friend: str) -> None:
    response = await text(linked.pod, friend, " \n\t")
    assert response.status == 422
    assert response.json["detail"].startswith("text: must have more than white space")


async def test_a_reply(linked: Linked, friend: str) -> None:
    async with linked.pod.stream("message") as events:
        question = await linked.phone.send(friend, ME, "a question")
        event = await anext(events)
    assert question in event.json["id"]
    assert (await text(linked.pod, friend, "an answer", replyTo=event.json["id"])).status == 201
    [answer] = await received(linked.phone, f"{friend}@c.us")
    assert answer.quoted == question
    file = form(friend, PNG, replyTo=event.json["id"], mime="image/png")
    assert (await linked.pod.answer("POST", "/v1/messages", data=file)).status == 201
    assert (await received(linked.phone, f"{friend}@c.us"))[1].quoted == question


async def test_a_reply_to_nothing_and_to_another_chat_are_refused(
    linked: Linked, friend: str
) -> None:
    other = (await text(linked.pod, FIRST_GROUP)).json["id"]
    for message_id in (f"false_{friend}@c.us_3EB000000000", other):
        response = await text(linked.pod, friend, replyTo=message_id)
        assert (response.status, response.json["title"]) == (404, "Message not found")
    assert await received(linked.phone, f"{friend}@c.us") == []


@pytest.mark.parametrize("to", ["+19999999999", "120363999999999999@g.us"])
async def test_somebody_who_is_not_on_whatsapp(linked: Linked, to: str) -> None:
    response = await text(linked.pod, to)
    assert (response.status, response.json["title"]) == (404, "Recipient not found")


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "mime", "as_type", "expected"),
    [
        (PNG, "image/png", None, ("image", "image/png")),
        (b"moving", "video/mp4", None, ("video", "video/mp4")),
        (b"singing", "audio/ogg; codecs=opus", None, ("audio", "audio/ogg")),
        (PDF, "application/pdf", None, ("document", "application/pdf")),
        (PNG, "image/png", "document", ("document", "image/png")),
        (PNG, None, None, ("image", "image/png")),
        (PDF, "application/octet-stream", None, ("document", "application/pdf")),
        (b"who knows", None, None, ("document", "application/octet-stream")),
    ],
)
async def test_a_file(
    linked: Linked,
    friend: str,
    content: bytes,
    mime: str | None,
    as_type: str | None,
    expected: tuple[str, str],
) -> None:
    file = form(
        friend, content, mime=mime, type=as_type, caption="look", name="../a/ünïcode name.bin"
    )
    response = await linked.pod.answer("POST", "/v1/messages", data=file)
    assert response.status == 201, response.body
    [message] = await received(linked.phone, f"{friend}@c.us")
    assert message.id in response.json["id"]
    kind, mime_type = expected
    assert message.media == Media(
        kind=kind,
        mime_type=mime_type,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        file_name="ünïcode name.bin",
        caption="look",
    )
    status = await linked.pod.call("GET", response.headers["Location"])
    assert (status["type"], status["text"]) == (kind, "look")
    assert status["media"] == {
        "mimeType": mime_type,
        "size": len(content),
        "fileName": "ünïcode name.bin",
    }


async def test_a_large_file_comes_in_piece_by_piece(linked: Linked, friend: str) -> None:
    piece = bytes(range(256)) * 256
    digest = hashlib.sha256(piece * 256).hexdigest()

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(256):
            yield piece

    file = form(friend, pieces(), mime="application/zip", name="all.zip")
    assert (await linked.pod.answer("POST", "/v1/messages", data=file)).status == 201
    [message] = await received(linked.phone, f"{friend}@c.us")
    assert message.media is not None
    assert (message.media.size, message.media.sha256) == (16 * 2**20, digest)


@pytest.mark.parametrize(
    ("size", "mime"), [(21 * 2**20, "application/zip"), (17 * 2**20, "image/jpeg")]
)
async def test_a_file_that_is_too_large_for_the_pod_or_for_whatsapp(
    linked: Linked, friend: str, size: int, mime: str
) -> None:
    response = await linked.pod.answer(
        "POST", "/v1/messages", data=form(friend, bytes(size), mime=mime)
    )
    assert (response.status, response.json["title"]) == (413, "File too large")
    assert await received(linked.phone, f"{friend}@c.us") == []


async def test_no_file_stays_behind(linked: Linked, friend: str) -> None:
    assert (await linked.pod.answer("POST", "/v1/messages", data=form(friend, PNG))).status == 201
    assert (await linked.pod.answer("POST", "/v1/messages", data=form("nobody", PNG))).status == 422
    assert (
        await linked.pod.answer("POST", "/v1/messages", data=form("19999999999", PNG))
    ).status == 404
    assert linked.pod.uploads == []


# --- once, whatever fails -------------------------------------------------------------------------


async def test_a_retry_gets_the_first_answer(linked: Linked, friend: str) -> None:
    for order in (
        lambda: {"json": {"to": friend, "text": "once"}},
        lambda: {"data": form(friend, PNG)},
    ):
        headers = {"Idempotency-Key": f"{friend}-{order().keys()}".replace(" ", "")}
        first = await linked.pod.answer("POST", "/v1/messages", headers=headers, **order())
        second = await linked.pod.answer("POST", "/v1/messages", headers=headers, **order())
        assert (first.status, second.status) == (201, 201)
        assert first.json == second.json
        assert "Idempotent-Replayed" not in first.headers
        assert second.headers["Idempotent-Replayed"] == "true"
    assert len(await received(linked.phone, f"{friend}@c.us")) == 2


async def test_a_key_is_for_one_message(linked: Linked, friend: str) -> None:
    key = f"key-{friend}"
    assert (await text(linked.pod, friend, "one", key)).status == 201
    response = await text(linked.pod, friend, "another", key)
    assert (response.status, response.json["title"]) == (422, "Idempotency-Key reused")
    assert [message.text for message in await received(linked.phone, f"{friend}@c.us")] == ["one"]


@pytest.mark.parametrize("key", ["", "with space", "ü", "x" * 256])
async def test_keys_are_visible_characters(linked: Linked, friend: str, key: str) -> None:
    response = await linked.pod.answer(
        "POST", "/v1/messages", json={"to": friend, "text": "x"}, headers={"Idempotency-Key": key}
    )
    assert response.status == 422
    assert response.json["detail"].startswith("Idempotency-Key: ")


async def test_the_same_key_twice_at_once(linked: Linked, friend: str) -> None:
    await linked.phone.behave(ack_seconds=1)
    try:
        answers = await asyncio.gather(
            *(text(linked.pod, friend, "once", f"both-{friend}") for _ in range(5))
        )
    finally:
        await linked.phone.behave(ack_seconds=0)
    assert sorted(answer.status for answer in answers) == [201, 409, 409, 409, 409]
    assert all("Retry-After" in answer.headers for answer in answers if answer.status == 409)
    assert len(await received(linked.phone, f"{friend}@c.us")) == 1


async def test_a_send_that_whatsapp_refuses_can_be_tried_again(linked: Linked, friend: str) -> None:
    key = f"again-{friend}"
    await linked.phone.fault("send_fails", ME, seconds=60)
    response = await text(linked.pod, friend, "at last", key)
    assert (response.status, response.json["title"]) == (502, "Not sent")
    await linked.phone.heal()
    assert (await text(linked.pod, friend, "at last", key)).status == 201
    assert [message.text for message in await received(linked.phone, f"{friend}@c.us")] == [
        "at last"
    ]


@pytest.mark.parametrize("media", [False, True])
async def test_a_lost_confirmation_is_an_unknown_outcome(
    linked: Linked, friend: str, media: bool
) -> None:
    """The server gets the message, but the connection ends before its confirmation."""

    async def send() -> Answer:
        order: dict[str, Any] = (
            {"data": form(friend, PNG)} if media else {"json": {"to": friend, "text": "once"}}
        )
        return await linked.pod.answer(
            "POST", "/v1/messages", headers={"Idempotency-Key": f"lost-{friend}"}, **order
        )

    await linked.phone.behave(ack_seconds=1)
    first = asyncio.create_task(send())
    await until_on_the_way(linked.pod, friend)
    await linked.phone.fault("drop", ME)
    response = await first
    await linked.phone.behave(ack_seconds=0)
    assert (response.status, response.json["title"]) == (504, "Outcome unknown")
    assert {"Retry-After", "Location"} <= response.headers.keys()
    assert (await until_known(send)).status == 201
    assert len(await received(linked.phone, f"{friend}@c.us")) == 1


async def until_on_the_way(pod: Pod, friend: str) -> None:
    """Wait until the page has begun to send to the friend."""
    async with asyncio.timeout(30):
        while True:
            listed = await pod.answer("GET", "/v1/chats?limit=500")
            if listed.status == 200 and any(
                chat["id"].startswith(friend) for chat in listed.json["items"]
            ):
                return


async def until_known(send: Callable[[], Awaitable[Answer]]) -> Answer:
    """Retry as long as the response has Retry-After."""
    async with asyncio.timeout(60):
        while "Retry-After" in (response := await send()).headers:  # noqa: ASYNC110
            await asyncio.sleep(0.1)  # polling
        return response


async def test_a_send_without_answer_is_unknown_until_there_is_one(
    start: Start, phone: Phone
) -> None:
    pod = await start(send_timeout="1")
    await phone.scan(await pod.qr())
    await pod.ready()
    await phone.fault("silent", ME, seconds=60)
    response = await text(pod, FIRST_GROUP, "once", "silent")
    assert (response.status, response.json["title"]) == (504, "Outcome unknown")
    response = await text(pod, FIRST_GROUP, "once", "silent")
    assert (response.status, response.json["title"]) == (409, "Send in progress")
    await phone.heal()
    await phone.fault("drop", ME)
    assert (await until_known(lambda: text(pod, FIRST_GROUP, "once", "silent"))).status == 201
    assert len(await received(phone, FIRST_GROUP)) == 1


@pytest.mark.parametrize(
    ("moment", "media"),
    [
        ("as soon as it is recorded", False),
        ("before the server", False),
        ("before the server", True),
        ("after the server", False),
        ("after the server", True),
        ("after the answer", False),
    ],
)
async def test_a_pod_that_is_killed_in_between_sends_nothing_twice(
    start: Start, phone: Phone, moment: str, media: bool
) -> None:
    async def send(pod: Pod) -> Answer:
        order: dict[str, Any] = (
            {"data": form("15550001111", PNG)}
            if media
            else {"json": {"to": "15550001111", "text": "once"}}
        )
        return await pod.answer(
            "POST", "/v1/messages", headers={"Idempotency-Key": "killed"}, **order
        )

    pod = await start()
    await phone.scan(await pod.qr())
    await pod.ready()
    if moment == "after the answer":
        first = await send(pod)
        assert first.status == 201
    else:
        if moment == "before the server":
            await phone.fault("silent", ME, seconds=60)
        else:
            await phone.behave(ack_seconds=2, auto_delivery=False)
        under_way = asyncio.create_task(send(pod))
        await until_recorded(pod)
        if moment != "as soon as it is recorded":
            await asyncio.sleep(0.5)  # the moment of the kill, not a wait
    assert bool(pod.uploads) == media
    await pod.kill()
    if moment != "after the answer":
        with pytest.raises(aiohttp.ClientError):
            await under_way
    await phone.heal()
    again = await start()
    await again.ready()
    assert pod.uploads == [], "the next process removes what the killed one left"
    response = await send(again)
    assert response.status == 201, response.body
    [message] = await phone.messages()
    assert message.id in response.json["id"]
    if moment == "after the answer":
        assert response.headers["Idempotent-Replayed"] == "true"
    assert (await send(again)).headers["Idempotent-Replayed"] == "true"
    assert len(await phone.messages()) == 1


async def until_recorded(pod: Pod) -> None:
    """Wait until the send is in the idempotency store."""
    async with asyncio.timeout(20):
        while b"killed" not in b"".join(  # noqa: ASYNC110
            path.read_bytes() for path in pod.directory.glob("messages.sqlite*")
        ):
            await asyncio.sleep(0.01)  # polling


async def test_a_browser_killed_during_a_send_is_reported(start: Start, phone: Phone) -> None:
    pod = await start()
    await phone.scan(await pod.qr())
    await pod.ready()
    await phone.fault("silent", ME, seconds=60)
    under_way = asyncio.create_task(text(pod, "15550001111", "once", "killed"))
    await until_recorded(pod)
    pod.process_of("browser").kill()
    response = await under_way
    assert (response.status, response.json["title"]) == (504, "Outcome unknown")
    await phone.heal()
    await pod.until(lambda report: report.phase == "Restoring")
    await pod.ready()
    assert (await text(pod, "15550001111", "once", "killed")).status == 201
    assert len(await phone.messages()) == 1


# --- logs -----------------------------------------------------------------------------------------


async def test_messages_are_not_logged(linked: Linked, friend: str) -> None:
    secrets = ["confidential-text", "confidential-caption", "confidential-name", TOKEN]
    await text(linked.pod, friend, secrets[0], "confidential-key")
    await linked.pod.answer(
        "POST", "/v1/messages", data=form(friend, PNG, caption=secrets[1], name=secrets[2])
    )
    async with linked.pod.stream("message") as events:
        await linked.phone.send(friend, ME, secrets[0])
        assert (await anext(events)).json["text"] == secrets[0]
    for secret in secrets:
        assert secret not in linked.pod.log
    metrics = (await linked.pod.answer("GET", "/metrics")).body.decode()
    assert friend not in metrics
