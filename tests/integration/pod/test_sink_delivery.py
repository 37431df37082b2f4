"""Sinks: events of a real outbox are stored by a real nats-server, whatever happens to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from integration.pod.delivering import A, B, Pod, until, until_idle
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RawStreamMsg
from support.certificate_authority import CertificateAuthority
from support.nats import NatsServer
from support.nats.credentials import Operator
from wasession_api.v1alpha1 import DeliveryState
from wasession_pod.delivery import plan
from wasession_pod.state.observation import PageEvent

STREAM = "WHATSAPP"
SECRET = "hunter2-of-the-tests"
Start = Callable[..., Any]


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[Start]:
    """Start servers with ``await nats(options)``; they end with the test."""
    servers = list[NatsServer]()

    async def start(**options: Any) -> NatsServer:
        server = NatsServer(tmp_path / f"nats-{len(servers)}", options)
        servers.append(server)
        await server.start()
        return server

    yield start
    for server in servers:
        server.end()


@pytest.fixture
async def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pod]:
    monkeypatch.setattr(plan, "FIRST_DELAY", 0.01)
    (tmp_path / "keys").mkdir()
    async with Pod(tmp_path).running() as made:
        yield made


async def configure(
    pod: Pod, server: str, fields: dict[str, Any] | None = None, **nats: Any
) -> None:
    wanted = {"servers": [server], "stream": STREAM, **nats}
    await pod.deliver(sinks=[{"name": "crm", "nats": wanted, **(fields or {})}])


@contextlib.asynccontextmanager
async def stream(server: NatsServer, **options: Any) -> AsyncIterator[JetStreamContext]:
    async with server.client(**options) as client:
        yield client.jetstream()


async def add_stream(
    server: NatsServer, *, client: dict[str, Any] | None = None, **options: Any
) -> None:
    async with stream(server, **(client or {})) as jetstream:
        await jetstream.add_stream(name=STREAM, subjects=["whatsapp.>"], **options)


async def stored(server: NatsServer, **options: Any) -> list[RawStreamMsg]:
    async with stream(server, **options) as jetstream:
        state = (await jetstream.stream_info(STREAM)).state
        numbers = range(max(state.first_seq, 1), state.last_seq + 1)
        return [await jetstream.get_msg(STREAM, number) for number in numbers]


def texts(messages: list[RawStreamMsg]) -> list[str]:
    return [json.loads(message.data or b"")["data"]["text"] for message in messages]


async def until_failing(pod: Pod, error: str) -> None:
    """Wait until the sink fails, for this reason."""
    await until(lambda: pod.delivery.status.state is DeliveryState.FAILING)
    assert error in (pod.delivery.error or ""), pod.delivery.error


async def until_delivering(pod: Pod) -> None:
    await until_idle(pod)
    await until(lambda: pod.delivery.status.state is DeliveryState.DELIVERING)


async def test_an_event_is_stored_with_its_id(pod: Pod, nats: Start) -> None:
    server = await nats()
    await add_stream(server)
    await configure(pod, server.url)
    await pod.hear(A)
    await until_idle(pod)
    [message] = await stored(server)
    assert message.subject == "whatsapp.crm.sales.message"
    event = json.loads(message.data or b"")
    assert (event["type"], event["subject"]) == ("dev.wasession.message", A)
    headers = message.headers or {}
    assert headers["Nats-Msg-Id"] == event["id"]
    assert headers["Content-Type"].startswith("application/cloudevents+json")


async def test_what_is_told_again_is_stored_once(pod: Pod, nats: Start) -> None:
    server = await nats()
    await add_stream(server)
    await configure(pod, server.url)
    first = str(pod.outbox.latest)
    await pod.hear(A, B, A)
    await until_idle(pod)
    pod.deliveries.replay("crm", first)
    await until_idle(pod)
    await pod.hear(A)
    await until_idle(pod)
    assert texts(await stored(server)) == ["1", "2", "3", "4"]


async def test_a_server_that_is_away_gets_everything_later(pod: Pod, nats: Start) -> None:
    server = await nats()
    await add_stream(server)
    server.end()
    await configure(pod, server.url)
    await pod.hear(A, B, A)
    await until_failing(pod, "cannot connect")
    await server.start()
    await until_delivering(pod)
    assert sorted(texts(await stored(server))) == ["1", "2", "3"]


async def test_nothing_is_lost_when_the_server_is_killed_again_and_again(
    pod: Pod, nats: Start
) -> None:
    server = await nats()
    await add_stream(server)
    await configure(pod, server.url)
    for _ in range(5):
        hearing = asyncio.create_task(pod.hear(*[A, B] * 20))
        server.end()
        await server.start()
        await hearing
    await until_delivering(pod)
    found = texts(await stored(server))
    of_chat = {
        chat: [text for text in found if int(text) % 2 == odd] for chat, odd in ((A, 1), (B, 0))
    }
    assert of_chat[A] == [str(number) for number in range(1, 200, 2)]
    assert of_chat[B] == [str(number) for number in range(2, 201, 2)]


async def test_a_server_that_stands_still_is_given_up_after_the_timeout(
    pod: Pod, nats: Start
) -> None:
    server = await nats()
    await add_stream(server)
    await configure(pod, server.url, {"timeout": "1s"})
    await pod.hear(A)
    await until_idle(pod)
    server.signal(signal.SIGSTOP)
    await pod.hear(A, A)
    await until_failing(pod, "no answer within 1 s")
    server.signal(signal.SIGCONT)
    await until_delivering(pod)
    assert texts(await stored(server)) == ["1", "2", "3"]


async def test_a_full_stream_takes_everything_when_it_has_space_again(
    pod: Pod, nats: Start
) -> None:
    server = await nats()
    await add_stream(server, max_msgs=1, discard=DiscardPolicy.NEW)
    await configure(pod, server.url)
    await pod.hear(A, A, A)
    await until_failing(pod, "the stream is full")
    async with stream(server) as jetstream:
        await jetstream.update_stream(
            name=STREAM, subjects=["whatsapp.>"], max_msgs=-1, discard=DiscardPolicy.NEW
        )
    await until_delivering(pod)
    assert texts(await stored(server)) == ["1", "2", "3"]


async def test_without_a_stream_events_wait_until_there_is_one(pod: Pod, nats: Start) -> None:
    server = await nats()
    await configure(pod, server.url)
    await pod.hear(A)
    await until_failing(pod, "no stream takes the subject whatsapp.crm.sales.message")
    await add_stream(server)
    await until_delivering(pod)
    assert texts(await stored(server)) == ["1"]


async def test_another_stream_than_the_wanted_one_gets_nothing(pod: Pod, nats: Start) -> None:
    server = await nats()
    await add_stream(server)
    await configure(pod, server.url, stream="OTHER")
    await pod.hear(A)
    await until_failing(pod, "the subject is of another stream")
    assert await stored(server) == []


async def test_an_event_that_is_too_large_is_a_dead_letter(pod: Pod, nats: Start) -> None:
    server = await nats(max_payload=300)
    await add_stream(server)
    await configure(pod, server.url)
    await pod.hear(A)
    await until_idle(pod)
    [letter] = await pod.deliveries.dead_letters("crm")
    assert letter.error == "the event is larger than the server takes"


# --- who we are -----------------------------------------------------------------------------------

USERS = {
    "users": [
        {"user": "pod", "password": SECRET},
        {"user": "mute", "password": SECRET, "permissions": {"publish": "other.>"}},
    ]
}


async def test_a_user_and_password(pod: Pod, nats: Start, tmp_path: Path) -> None:
    server = await nats(authorization=USERS)
    login = {"user": "pod", "password": SECRET}
    await add_stream(server, client=login)
    await configure(pod, server.url, credentials="nats")
    await pod.hear(A)
    await until_failing(pod, "the Secret wasession-delivery has no key nats")
    (tmp_path / "keys" / "nats").write_text("pod:wrong")
    await until_error(pod, "the server does not accept the credentials")
    (tmp_path / "keys" / "nats").write_text(f"pod:{SECRET}\n")
    await until_delivering(pod)
    assert texts(await stored(server, **login)) == ["1"]


async def until_error(pod: Pod, error: str) -> None:
    await until(lambda: pod.delivery.error == error)


@pytest.fixture(autouse=True)
def changed_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """See a changed Secret at once."""
    monkeypatch.setattr("wasession_pod.delivery.sender.SECRET_LIFETIME", 0.0)


async def test_a_user_that_may_not_publish(pod: Pod, nats: Start, tmp_path: Path) -> None:
    server = await nats(authorization=USERS)
    await add_stream(server, client={"user": "pod", "password": SECRET})
    (tmp_path / "keys" / "nats").write_text(f"mute:{SECRET}")
    await configure(pod, server.url, {"timeout": "1s"}, credentials="nats")
    await pod.hear(A)
    await until_failing(pod, "the credentials do not allow to publish this")


async def test_what_may_not_be_published_holds_up_nothing_else(
    pod: Pod, nats: Start, tmp_path: Path
) -> None:
    permissions = {"publish": {"allow": ["whatsapp.>"], "deny": ["whatsapp.crm.sales.ack"]}}
    mute = {"user": "mute", "password": SECRET, "permissions": permissions}
    server = await nats(authorization={"users": [USERS["users"][0], mute]})
    login = {"user": "pod", "password": SECRET}
    await add_stream(server, client=login)
    (tmp_path / "keys" / "nats").write_text(f"mute:{SECRET}")
    await configure(pod, server.url, {"timeout": "1s"}, credentials="nats")
    ack = {"id": "true_1", "chatId": B, "ack": 3, "at": "2026-01-02T03:04:05Z"}
    assert pod.outbox.receive(PageEvent(type="chat.ack", data=ack))
    for _ in range(20):
        await pod.hear(A)
    await until(lambda: pod.delivery.error is not None)
    await until(lambda: pod.delivery.pending == 1)
    assert texts(await stored(server, **login)) == [str(number) for number in range(1, 21)]


async def test_the_limit_of_an_account_counts(pod: Pod, nats: Start, tmp_path: Path) -> None:
    """The server tells it after the login, and ends the connection of who exceeds it."""
    operator = Operator(payload=300)
    server = await nats(**operator.options)
    (tmp_path / "creds").write_text(operator.credentials())
    await add_stream(server, client={"user_credentials": str(tmp_path / "creds")})
    (tmp_path / "keys" / "nats").write_text(operator.credentials())
    await configure(pod, server.url, credentials="nats")
    await pod.hear(A)
    await until_idle(pod)
    [letter] = await pod.deliveries.dead_letters("crm")
    assert letter.error == "the event is larger than the server takes"


async def test_a_credentials_file(pod: Pod, nats: Start, tmp_path: Path) -> None:
    operator = Operator()
    server = await nats(**operator.options)
    (tmp_path / "creds").write_text(operator.credentials())
    login = {"user_credentials": str(tmp_path / "creds")}
    await add_stream(server, client=login)
    edited = operator.credentials().replace("\n", " \n\n ")
    (tmp_path / "keys" / "nats").write_text(edited)
    await configure(pod, server.url, credentials="nats")
    await pod.hear(A)
    await until_delivering(pod)
    assert texts(await stored(server, **login)) == ["1"]
    (tmp_path / "keys" / "nats").write_text(Operator().credentials())
    await pod.restart()
    await pod.hear(A)
    await until_error(pod, "the server does not accept the credentials")


# --- TLS ------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    made = CertificateAuthority()
    made.server_context(tmp_path, "localhost")
    return made


def tls(directory: Path) -> dict[str, Any]:
    file = str(directory / "localhost.pem")
    return {"tls": {"cert_file": file, "key_file": file}}


async def test_tls_with_an_authority_of_the_class(
    pod: Pod, nats: Start, tmp_path: Path, authority: CertificateAuthority
) -> None:
    server = await nats(**tls(tmp_path))
    context = ssl.create_default_context(cadata=authority.pem.decode())
    trusting = {"tls": context, "tls_hostname": "localhost"}
    await add_stream(server, client=trusting)
    address = f"tls://localhost:{server.port}"
    await configure(pod, address)
    await pod.hear(A)
    await until_failing(pod, "the certificate is not accepted")
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    await pod.restart()
    await until_delivering(pod)
    assert texts(await stored(server, **trusting)) == ["1"]
    await configure(pod, f"tls://127.0.0.1:{server.port}")
    await pod.hear(A)
    await until_failing(pod, "the certificate is not accepted")


async def test_a_server_that_must_use_tls_is_told_nothing_in_the_clear(
    pod: Pod, nats: Start, tmp_path: Path
) -> None:
    server = await nats(authorization=USERS)
    heard = bytearray()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, downstream = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(await upstream.readline())  # INFO
        heard.extend(await reader.read())
        for one in (writer, downstream):
            one.close()

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as between:
        port = between.sockets[0].getsockname()[1]
        (tmp_path / "keys" / "nats").write_text(f"pod:{SECRET}")
        await configure(pod, f"tls://127.0.0.1:{port}", credentials="nats")
        await pod.hear(A)
        await until_failing(pod, "the server does not require TLS")
    assert heard == b""


# --- where it may go ------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_private_address_gets_nothing(pod: Pod, nats: Start, host: str) -> None:
    server = await nats()
    await add_stream(server)
    nats_of = {"servers": [f"nats://{host}:{server.port}"], "stream": STREAM}
    await pod.deliver(sinks=[{"name": "crm", "nats": nats_of}], policy={})
    await pod.hear(A)
    await until_failing(pod, "is not a public address")
    assert await stored(server) == []


async def test_servers_that_a_server_names_are_not_used(pod: Pod, nats: Start) -> None:
    """A cluster tells its clients its other servers; their addresses were not checked."""
    other = await nats()
    await add_stream(other)
    server = await nats(client_advertise=f"127.0.0.1:{other.port}")
    await add_stream(server)
    await configure(pod, server.url)
    await pod.hear(A)
    await until_idle(pod)
    server.end()
    await pod.hear(A)
    await until_failing(pod, "cannot connect")
    assert await stored(other) == []


async def test_the_next_server_is_used_when_one_is_away(pod: Pod, nats: Start) -> None:
    away, server = await nats(), await nats()
    away.end()
    await add_stream(server)
    sink = {"name": "crm", "nats": {"servers": [away.url, server.url], "stream": STREAM}}
    await pod.deliver(sinks=[sink])
    await pod.hear(A)
    await until_delivering(pod)
    assert texts(await stored(server)) == ["1"]


async def test_a_server_that_does_not_speak_nats(pod: Pod) -> None:
    app = web.Application()
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    await configure(pod, f"nats://127.0.0.1:{runner.addresses[0][1]}", {"timeout": "2s"})
    await pod.hear(A)
    await until_failing(pod, "")
    await runner.cleanup()


@pytest.mark.parametrize(
    "answer",
    [
        b"INFO {}\r\nPONG\r\n+OK\r\n\xff\xfe garbage\r\n",
        b"INFO []\r\n",
        b"INFO {",
        b"x" * 200_000,
        b"",
        b"INFO {}\r\nPING\r\n-ERR 'x'\r\n",
        b"INFO {}\r\nPONG\r\nMSG x 1 99999999999\r\n" + b"x" * 2_000_000,
        b"INFO {}\r\nPONG\r\nINFO " + b"x" * 2_000_000,
    ],
)
async def test_a_server_that_answers_nonsense(pod: Pod, answer: bytes) -> None:
    async def answering(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(answering, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await configure(pod, f"nats://127.0.0.1:{port}", {"timeout": "2s"})
        await pod.hear(A)
        await until_failing(pod, "")
