"""Webhooks: events of a real outbox reach a real receiver, whatever it answers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from integration.pod.delivering import GROUP, PATIENCE, A, B, Pod, until, until_idle
from support.certificate_authority import CertificateAuthority
from wasession_api.session_pod.delivery import Configuration
from wasession_api.session_pod.events import EventId
from wasession_api.v1alpha1 import DeliveryState
from wasession_pod.delivery import deliveries, delivery, plan
from wasession_pod.delivery.deliveries import NotHere, UnknownDestination
from wasession_pod.messages.outbox import Batch

KEY = "whsec_" + base64.b64encode(bytes(range(32))).decode()
SOURCE = "/namespaces/crm/whatsappsessions/sales"
Answer = Callable[[dict[str, Any]], Awaitable[web.StreamResponse]]


@dataclass
class Receiver:
    """An application's endpoint. ``answer`` decides; the default takes everything."""

    url: str = ""
    requests: list[tuple[dict[str, str], dict[str, Any]]] = field(default_factory=list)
    answer: Answer | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        response = web.Response() if self.answer is None else await self.answer(body)
        self.requests.append((dict(request.headers), body))
        self.changed.set()
        return response

    def status(self, status: int, headers: dict[str, str] | None = None) -> None:
        async def answer(_: dict[str, Any]) -> web.Response:
            return web.Response(status=status, headers=headers)

        self.answer = answer

    @property
    def texts(self) -> list[str]:
        return [body["data"].get("text", body["type"]) for _, body in self.requests]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    app = web.Application()
    app.router.add_post("/{tail:.*}", made.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield made
    await runner.cleanup()


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(plan, "FIRST_DELAY", 0.01)
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "crm").write_text(KEY)
    return tmp_path


@pytest.fixture
async def pod(directory: Path) -> AsyncIterator[Pod]:
    async with Pod(directory).running() as made:
        yield made


async def test_an_event_arrives_signed(pod: Pod, receiver: Receiver) -> None:
    await pod.configure(receiver.url)
    await pod.hear(A)
    await receiver.until(lambda: receiver.texts == ["1"])
    headers, body = receiver.requests[0]
    assert body["source"] == SOURCE
    assert body["type"] == "dev.wasession.message"
    assert body["subject"] == A
    assert headers["webhook-id"] == body["id"]
    assert headers["webhook-signature"].startswith("v1,")
    assert headers["Content-Type"].startswith("application/cloudevents+json")


async def test_a_new_webhook_starts_with_the_next_event(pod: Pod, receiver: Receiver) -> None:
    await pod.hear(A, A)
    await pod.configure(receiver.url)
    await pod.hear(A)
    await receiver.until(lambda: receiver.texts == ["3"])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ["1", "2", "3"]),
        ({"events": ["ack"]}, []),
        ({"filter": {"chats": ["Group"]}}, ["2"]),
        ({"filter": {"chats": ["Person"]}}, ["1", "3"]),
        ({"filter": {"fromMe": True}}, ["3"]),
        ({"filter": {"fromMe": False}}, ["1", "2"]),
    ],
)
async def test_only_what_is_wanted(
    pod: Pod, receiver: Receiver, fields: dict[str, Any], expected: list[str]
) -> None:
    await pod.configure(receiver.url, **fields)
    await pod.hear(A, GROUP)
    await pod.hear(B, from_me=True)
    await until_idle(pod)
    assert sorted(receiver.texts) == expected


@pytest.mark.parametrize("status", [301, 302, 307, 401, 403, 404, 408, 500, 502, 503])
async def test_what_fails_is_told_again_under_its_id_and_in_order(
    pod: Pod, receiver: Receiver, status: int
) -> None:
    await pod.configure(receiver.url)
    receiver.status(status, {"Location": receiver.url})
    await pod.hear(A, A, A)
    await receiver.until(lambda: len(receiver.requests) >= 3)
    assert pod.delivery.error == f"HTTP {status}"
    assert set(receiver.texts) == {"1"}
    receiver.answer = None
    await receiver.until(lambda: receiver.texts[-3:] == ["1", "2", "3"])
    ids = [headers["webhook-id"] for headers, _ in receiver.requests]
    assert len(set(ids)) == 3
    await until_idle(pod)
    assert pod.delivery.error is None


async def test_a_failing_chat_does_not_hold_up_the_others(pod: Pod, receiver: Receiver) -> None:
    async def answer(body: dict[str, Any]) -> web.Response:
        return web.Response(status=500 if body["subject"] == A else 200)

    receiver.answer = answer
    await pod.configure(receiver.url)
    await pod.hear(A, A, B, B, GROUP)
    await receiver.until(lambda: {"3", "4", "5"} <= set(receiver.texts))
    assert "2" not in receiver.texts


async def test_what_is_rejected_is_a_dead_letter_and_can_be_sent_again(
    pod: Pod, receiver: Receiver
) -> None:
    await pod.configure(receiver.url)
    receiver.status(422)
    await pod.hear(A)
    await receiver.until(lambda: len(receiver.requests) == plan.REJECTIONS)
    receiver.answer = None
    await pod.hear(A)
    await receiver.until(lambda: receiver.texts[-1] == "2")
    await until_idle(pod)
    await pod.restart()
    [letter] = await pod.deliveries.dead_letters("crm")
    assert (letter.kind, letter.error, letter.attempts) == ("message", "HTTP 422", plan.REJECTIONS)
    assert await pod.deliveries.replay_dead("crm") == 1
    await receiver.until(lambda: receiver.texts[-1] == "1")
    assert receiver.requests[-1][0]["webhook-id"] == letter.event_id
    await pod.restart()
    assert await pod.deliveries.dead_letters("crm") == []


async def test_a_receiver_that_wants_no_more_is_left_alone_until_it_is_changed(
    pod: Pod, receiver: Receiver
) -> None:
    await pod.configure(receiver.url)
    receiver.status(410)
    await pod.hear(A)
    await receiver.until(lambda: len(receiver.requests) == 1)
    receiver.answer = None
    await pod.hear(A)
    await until(lambda: pod.delivery.kept.progress.gone)
    assert len(receiver.requests) == 1
    await pod.configure(receiver.url + "/new")
    await receiver.until(lambda: receiver.texts[1:] == ["1", "2"])


async def test_retry_after_is_heeded(pod: Pod, receiver: Receiver) -> None:
    await pod.configure(receiver.url)
    receiver.status(429, {"Retry-After": "1"})
    await pod.hear(A)
    await receiver.until(lambda: len(receiver.requests) == 1)
    receiver.answer = None
    loop = asyncio.get_running_loop()
    began = loop.time()
    await pod.hear(B)
    await receiver.until(lambda: set(receiver.texts[1:]) == {"1", "2"})
    assert loop.time() - began > 0.8


async def test_nothing_is_lost_or_reordered_by_a_restart(pod: Pod, receiver: Receiver) -> None:
    await pod.configure(receiver.url)
    receiver.status(500)
    await pod.hear(A, B, A)
    await receiver.until(lambda: len(receiver.requests) >= 2)
    await pod.deliveries.close()
    receiver.requests.clear()
    receiver.answer = None
    await pod.load()
    await receiver.until(lambda: len(receiver.requests) == 3)
    assert [text for text in receiver.texts if text != "2"] == ["1", "3"]


@pytest.mark.parametrize("progress", ["", "{}", "[]", '{"reached": 1}', '{"newer": true}'])
async def test_progress_that_cannot_be_read_tells_everything_again(
    pod: Pod, receiver: Receiver, progress: str
) -> None:
    await pod.configure(receiver.url)
    await pod.hear(A, A)
    await receiver.until(lambda: receiver.texts == ["1", "2"])
    await until_idle(pod)
    await pod.deliveries.close()
    with pod.database.transaction() as database:
        database.execute("UPDATE deliveries SET progress = ?", (progress,))
    await pod.load()
    await receiver.until(lambda: receiver.texts == ["1", "2"] * 2)


async def test_a_configuration_that_cannot_be_read_goes_on_with_the_next_one(
    pod: Pod, receiver: Receiver
) -> None:
    """A newer version may have written it; what was delivered is not told again."""
    await pod.configure(receiver.url)
    await pod.hear(A)
    await receiver.until(lambda: receiver.texts == ["1"])
    await until_idle(pod)
    await pod.deliveries.close()
    with pod.database.transaction() as database:
        newer = '{"webhooks": [{"name": "crm", "protocol": "grpc"}], "revision": "newer"}'
        database.execute("UPDATE delivery_configuration SET configuration = ?", (newer,))
    await pod.load()
    assert pod.deliveries.revision == ""
    await pod.hear(A)
    await pod.configure(receiver.url)
    await receiver.until(lambda: receiver.texts == ["1", "2"])


async def test_a_paused_webhook_gets_everything_later(pod: Pod, receiver: Receiver) -> None:
    await pod.configure(receiver.url)
    pod.delivery.pause(paused=True)
    await pod.hear(A, B)
    assert receiver.requests == []
    await pod.restart()
    assert pod.delivery.kept.paused
    assert receiver.requests == []
    pod.delivery.pause(paused=False)
    await receiver.until(lambda: sorted(receiver.texts) == ["1", "2"])


async def test_everything_after_an_event_can_be_told_again(pod: Pod, receiver: Receiver) -> None:
    await pod.configure(receiver.url)
    await pod.hear(A, A, A)
    await receiver.until(lambda: receiver.texts == ["1", "2", "3"])
    first = receiver.requests[0][0]["webhook-id"]
    pod.deliveries.replay("crm", first)
    await receiver.until(lambda: receiver.texts[3:] == ["2", "3"])
    with pytest.raises(UnknownDestination):
        pod.deliveries.replay("other", first)
    outbox = first.partition("-")[0]
    for cursor in ("0123456789abcdef-1", f"{outbox}-{pod.number + 1}", f"{outbox}-999999999999"):
        with pytest.raises(NotHere, match="present outbox"):
            pod.deliveries.replay("crm", cursor)
    await pod.hear(A)
    await receiver.until(lambda: receiver.texts[5:] == ["4"])


async def test_a_key_that_is_missing_sends_nothing_and_says_so(
    pod: Pod, receiver: Receiver
) -> None:
    await pod.configure(receiver.url, signingKey="other")
    await pod.hear(A)
    await until(lambda: pod.delivery.error is not None)
    assert pod.delivery.error == "the Secret wasession-delivery has no key other"
    assert receiver.requests == []
    (pod.directory / "keys" / "other").write_text(KEY)
    await receiver.until(lambda: receiver.texts == ["1"])


async def test_a_private_address_gets_nothing(pod: Pod, receiver: Receiver) -> None:
    webhook = {"name": "crm", "url": receiver.url, "signingKey": "crm"}
    for url in (receiver.url, receiver.url.replace("127.0.0.1", "localhost")):
        await pod.deliveries.configure(
            Configuration.model_validate({"webhooks": [{**webhook, "url": url}]})
        )
        await pod.hear(A)
        await until(lambda: pod.delivery.error is not None)
        assert "not a public address" in (pod.delivery.error or "")
    assert receiver.requests == []


async def test_a_certificate_that_nobody_trusts_gets_nothing(
    pod: Pod, receiver: Receiver, tmp_path: Path
) -> None:
    """Not the system's authorities, then another name; then the class's authority and the name."""
    authority = CertificateAuthority()
    async with over_tls(receiver, authority.server_context(tmp_path, "localhost")) as port:
        await pod.configure(f"https://localhost:{port}/hook")
        await pod.hear(A)
        await until(lambda: "certificate is not accepted" in (pod.delivery.error or ""))
        (tmp_path / "ca.pem").write_bytes(authority.pem)
        await pod.configure(f"https://127.0.0.1:{port}/hook")
        await until(lambda: "certificate is not accepted" in (pod.delivery.error or ""))
        assert receiver.requests == []
        await pod.configure(f"https://localhost:{port}/hook")
        await receiver.until(lambda: receiver.texts == ["1"])


async def test_an_endpoint_without_tls_gets_nothing(pod: Pod, receiver: Receiver) -> None:
    await pod.configure(receiver.url.replace("http:", "https:"))
    await pod.hear(A)
    await until(lambda: pod.delivery.error is not None)
    assert "TLS" in (pod.delivery.error or "")
    assert receiver.requests == []


@contextlib.asynccontextmanager
async def over_tls(receiver: Receiver, context: ssl.SSLContext) -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_post("/{tail:.*}", receiver.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200", b"HTTP/1.1 999999 x\r\n\r\n", b"nonsense\r\n\r\n"]
)
async def test_an_endpoint_that_dies_in_the_middle_is_told_again(
    pod: Pod, receiver: Receiver, answer: bytes
) -> None:
    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(die, "127.0.0.1", 0) as dying:
        port = dying.sockets[0].getsockname()[1]
        await pod.configure(f"http://127.0.0.1:{port}/")
        await pod.hear(A)
        await until(lambda: pod.delivery.error is not None)
    await pod.configure(receiver.url)
    await receiver.until(lambda: receiver.texts == ["1"])


async def test_a_receiver_that_is_slow_is_given_up_after_the_timeout(
    pod: Pod, receiver: Receiver
) -> None:
    late = asyncio.Event()

    async def answer(_: dict[str, Any]) -> web.Response:
        await late.wait()
        return web.Response()

    receiver.answer = answer
    await pod.configure(receiver.url, timeout="1s")
    await pod.hear(A)
    await until(lambda: pod.delivery.error is not None)
    assert pod.delivery.error == "no answer within 1 s"
    late.set()
    await receiver.until(lambda: "1" in receiver.texts)


async def test_an_event_that_has_expired_is_told_as_a_gap(
    directory: Path, receiver: Receiver
) -> None:
    receiver.status(500)
    async with Pod(directory).running() as pod:
        await pod.configure(receiver.url)
        await pod.hear(A, A, A)
        await receiver.until(lambda: receiver.texts != [])
        await pod.deliveries.close()
        assert await pod.outbox.make_room(1) > 0
    receiver.requests.clear()
    receiver.answer = None
    async with Pod(directory).running():
        await receiver.until(lambda: "dev.wasession.gap" in receiver.texts)
    headers, body = receiver.requests[receiver.texts.index("dev.wasession.gap")]
    assert body["data"] == {"reason": "Expired"}
    assert headers["webhook-id"].endswith("-gap"), "it is not the ID of an event that was told"


async def test_a_replay_during_a_read_skips_nothing(
    pod: Pod, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pod.configure(receiver.url)
    await pod.hear(A, A, A)
    await receiver.until(lambda: receiver.texts == ["1", "2", "3"])
    await until_idle(pod)
    first, read = receiver.requests[0][0]["webhook-id"], pod.outbox.read

    async def slow_read(position: EventId) -> Batch:
        batch = await read(position)
        monkeypatch.setattr(pod.outbox, "read", read)
        pod.deliveries.replay("crm", first)
        return batch

    monkeypatch.setattr(pod.outbox, "read", slow_read)
    await pod.hear(A)
    await receiver.until(lambda: receiver.texts[3:] == ["2", "3", "4"])


async def test_progress_survives_a_database_that_was_replaced(pod: Pod, receiver: Receiver) -> None:
    """A damaged one is quarantined while the pod runs."""
    await pod.configure(receiver.url)
    with pod.database.transaction() as database:
        database.execute("DELETE FROM deliveries")
        database.execute("DELETE FROM delivery_configuration")
    receiver.status(503)
    await pod.hear(A, A)
    await until(lambda: pod.delivery.error is not None)
    await pod.restart()
    receiver.answer = None
    receiver.requests.clear()
    await pod.configure(receiver.url)
    await receiver.until(lambda: receiver.texts == ["1", "2"])


async def test_the_id_of_a_gap_is_a_cursor(pod: Pod, receiver: Receiver) -> None:
    await pod.configure(receiver.url)
    await pod.hear(A, A)
    await receiver.until(lambda: receiver.texts == ["1", "2"])
    first = receiver.requests[0][0]["webhook-id"]
    pod.deliveries.replay("crm", f"{first}-gap")
    await receiver.until(lambda: receiver.texts == ["1", "2", "2"])


async def test_after_a_restart_the_status_says_what_failed(pod: Pod, receiver: Receiver) -> None:
    await pod.configure(receiver.url)
    receiver.status(500)
    await pod.hear(A)
    await until(lambda: pod.delivery.status.state is DeliveryState.FAILING)
    await pod.restart()
    assert pod.delivery.status.state is DeliveryState.FAILING
    assert pod.delivery.status.error == "HTTP 500"


async def test_another_outbox_is_told_as_a_gap_and_from_its_start(
    pod: Pod, receiver: Receiver
) -> None:
    await pod.configure(receiver.url)
    await pod.hear(A, A)
    await receiver.until(lambda: receiver.texts == ["1", "2"])
    with pod.database.transaction() as database:
        for table in ("outbox", "events", "facts"):
            database.execute(f"DELETE FROM {table}")  # noqa: S608
    await pod.hear(A)
    await receiver.until(lambda: sorted(receiver.texts[2:]) == ["3", "dev.wasession.gap"])
    _, body = receiver.requests[receiver.texts.index("dev.wasession.gap")]
    assert body["data"] == {"reason": "OutboxReplaced"}


async def test_a_gap_that_nobody_has_taken_outlives_a_restart(pod: Pod, receiver: Receiver) -> None:
    await pod.configure(receiver.url)
    receiver.status(500)
    with pod.database.transaction() as database:
        for table in ("outbox", "events", "facts"):
            database.execute(f"DELETE FROM {table}")  # noqa: S608
    await pod.hear(A)
    await receiver.until(lambda: "dev.wasession.gap" in receiver.texts)
    await pod.deliveries.close()
    receiver.requests.clear()
    receiver.answer = None
    await pod.load()
    await receiver.until(lambda: sorted(receiver.texts) == ["1", "dev.wasession.gap"])
    await until_idle(pod)


async def test_a_dead_letter_that_has_expired_meanwhile_is_told_as_a_gap(
    directory: Path, receiver: Receiver
) -> None:
    receiver.status(422)
    async with Pod(directory).running() as pod:
        await pod.configure(receiver.url)
        await pod.hear(A)
        await until_idle(pod)
        receiver.status(500)
        assert await pod.deliveries.replay_dead("crm") == 1
        await until(lambda: pod.delivery.error == "HTTP 500")
        await pod.deliveries.close()
        assert await pod.outbox.make_room(1) > 0
    receiver.answer = None
    async with Pod(directory).running() as pod:
        await receiver.until(lambda: receiver.texts[-1] == "dev.wasession.gap")
        await until_idle(pod)


async def test_a_bug_in_a_delivery_does_not_end_it(
    pod: Pod,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(deliveries, "RETRY_STORE", 0.1)
    await pod.configure(receiver.url)
    with monkeypatch.context() as broken:
        broken.setattr(delivery, "request", None)
        await pod.hear(A)
        await until(lambda: "a delivery has failed" in caplog.text)
    await receiver.until(lambda: receiver.texts == ["1"])


async def test_thousands_of_events_drain(pod: Pod, receiver: Receiver) -> None:
    await pod.configure(receiver.url)
    pod.delivery.pause(paused=True)
    chats = [f"1555000{number:04}@c.us" for number in range(50)]
    for _ in range(60):
        await pod.hear(*chats)
    pod.delivery.pause(paused=False)
    await receiver.until(lambda: len(receiver.requests) == 3000)
    for chat in chats:
        texts = [
            int(body["data"]["text"]) for _, body in receiver.requests if body["subject"] == chat
        ]
        assert texts == sorted(texts)
    assert len({headers["webhook-id"] for headers, _ in receiver.requests}) == 3000
