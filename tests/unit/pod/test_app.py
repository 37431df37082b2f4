"""The API around an idle session: tokens, slow clients and bugs."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer
from pydantic import SecretStr
from wasession_api.v1alpha1 import Phase
from wasession_pod.api import app, handlers, requests, uploads
from wasession_pod.messages.database import Database
from wasession_pod.messages.idempotency_store import IdempotencyStore
from wasession_pod.messages.outbox import Outbox
from wasession_pod.messages.sending import MessageSender
from wasession_pod.session import Session
from wasession_pod.settings import Settings

PICTURE = 2**20  # bytes
Client = TestClient[Any, Any]
Start = Callable[..., Awaitable[Client]]


class Idle:
    """A session that is starting."""

    report = SimpleNamespace(phase=Phase.STARTING, reason="PageLoading")

    def __init__(self, database: Database) -> None:
        self.outbox = Outbox(database, retention=60, maximum_bytes=2**20)
        self.shown = 0  # pictures of a screencast
        self.ended = asyncio.Event()

    def in_use(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    async def screenshot(self) -> bytes:
        raise ZeroDivisionError("a secret")

    async def screencast(self) -> AsyncIterator[bytes]:
        """Yield pictures as fast as they are read."""
        try:
            while True:
                self.shown += 1
                yield bytes(PICTURE)
        finally:
            self.ended.set()


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    clients: list[Client] = []

    async def begin(**settings: Any) -> Client:
        database = Database(tmp_path / "messages.sqlite")
        session = cast(Session, Idle(database))
        sender = MessageSender(session, IdempotencyStore(database), 10)
        application = app.application(
            session, sender, Settings(client_id="sales", data_dir=tmp_path, **settings)
        )
        clients.append(TestClient(TestServer(application)))
        await clients[-1].start_server()
        return clients[-1]

    yield begin
    for client in clients:
        await client.close()


async def status(client: Client, authorization: str) -> int:
    async with client.get(
        "/v1/pairing/refresh", headers={"Authorization": authorization}
    ) as answer:
        return answer.status  # 405 with the right token


async def test_a_token_file_is_read_at_each_request(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    client = await start(token_file=file)
    assert await status(client, "Bearer first") == 405
    file.write_text("second")
    assert (await status(client, "Bearer first"), await status(client, "bearer second")) == (
        401,
        405,
    )


@pytest.mark.parametrize("given", ["Bearer ", "Bearer", "", "Bearer \t"])
async def test_an_empty_token_file_opens_nothing(start: Start, tmp_path: Path, given: str) -> None:
    (tmp_path / "token").write_text("\n")
    assert await status(await start(token_file=tmp_path / "token"), given) == 503


async def test_a_bug_is_reported_without_its_message(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    client = await start(token=SecretStr("token"))
    async with client.get("/v1/screenshot", headers={"Authorization": "Bearer token"}) as answer:
        assert (answer.status, answer.content_type) == (500, "application/problem+json")
        assert "secret" not in await answer.text()
    assert "secret" not in caplog.text
    [record] = [
        record for record in caplog.records if record.message.startswith("request handler failed")
    ]
    assert vars(record)["error"] == "ZeroDivisionError"
    assert "in screenshot" in "".join(vars(record)["at"])


async def test_a_viewer_who_does_not_read_ends_the_screencast(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "WRITE_TIMEOUT", 0.2)
    client = await start(token=SecretStr("token"))
    session = cast(Idle, client.app[requests.SESSION])
    async with client.get("/v1/screencast", headers={"Authorization": "Bearer token"}) as answer:
        assert answer.status == 200
        async with asyncio.timeout(60):
            await session.ended.wait()
    assert session.shown * PICTURE < 32 * 2**20, "what the buffers of two sockets have"


@pytest.mark.parametrize(
    ("kind", "begun"),
    [
        ("application/json", b'{"to": "15550001111"'),
        (
            "multipart/form-data; boundary=edge",
            b'--edge\r\nContent-Disposition: form-data; name="to"\r\n\r\n1555',
        ),
        (
            "multipart/form-data; boundary=edge",
            b'--edge\r\nContent-Disposition: form-data; name="file"\r\n\r\ncontent',
        ),
    ],
)
async def test_a_client_that_stops_in_the_middle_of_a_body_times_out(
    start: Start, monkeypatch: pytest.MonkeyPatch, kind: str, begun: bytes
) -> None:
    monkeypatch.setattr(requests, "READ_TIMEOUT", 0.05)
    monkeypatch.setattr(uploads, "READ_TIMEOUT", 0.05)
    client = await start(token=SecretStr("token"))

    async def body() -> AsyncIterator[bytes]:
        yield begun
        await asyncio.Event().wait()

    headers = {"Authorization": "Bearer token", "Content-Type": kind, "Idempotency-Key": "key"}
    async with client.post("/v1/messages", data=body(), headers=headers) as answer:
        assert answer.status == 408
    assert [path.name for path in client.app[handlers.UPLOADS].directory.iterdir()] == ["lock"]


async def test_the_number_of_files_at_a_time_is_limited(start: Start) -> None:
    client = await start(token=SecretStr("token"))
    for number in range(6):
        (client.app[handlers.UPLOADS].directory / str(number)).mkdir()
    form = aiohttp.FormData({"to": "15550001111", "file": io.BytesIO(b"content")})
    async with client.post(
        "/v1/messages",
        data=form,
        headers={"Authorization": "Bearer token", "Idempotency-Key": "key"},
    ) as answer:
        assert (answer.status, (await answer.json())["title"]) == (503, "Busy")
        assert "Retry-After" in answer.headers
