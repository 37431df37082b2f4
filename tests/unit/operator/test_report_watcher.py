"""What a session pod reports, and how its stream is followed."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from unit.operator.situations import report
from wasession_api.http import sse
from wasession_api.http.sse import ServerSentEvent
from wasession_api.session_pod.client import SessionPodClient, Unauthorized, UnexpectedStatus
from wasession_api.session_pod.delivery import Configuration
from wasession_operator import report_watcher
from wasession_operator.report_watcher import OrderFailed, ReportWatcher, describe_error


class Pod:
    """A session pod whose event stream is fed by the test; None ends the stream."""

    def __init__(self) -> None:
        self.base = "http://10.0.0.1:8080"
        self.payloads: asyncio.Queue[str | None] = asyncio.Queue()
        self.connections = 0
        self.requests: list[str] = []
        self.errors: list[Exception] = []  # of the next connections
        self.knows_no_requests = False  # as an earlier version
        self.paces: list[sse.Pace] = []  # of each connection

    async def follow(
        self, types: str, on_event: Callable[[ServerSentEvent], None], pace: sse.Pace
    ) -> Any:
        assert types == "state"
        self.paces.append(pace)
        self.connections += 1
        if self.errors:
            raise self.errors.pop(0)
        ended = asyncio.ensure_future(self.send(on_event))
        return SimpleNamespace(ended=ended, close=ended.cancel)

    async def send(self, on_event: Callable[[ServerSentEvent], None]) -> Exception | None:
        try:
            while (payload := await self.payloads.get()) is not None:
                on_event(ServerSentEvent("state", payload, None))
        except ValueError as error:
            return error
        return None

    @contextlib.asynccontextmanager
    async def request(
        self, method: str, path: str, *, params: dict[str, str], timeout: Any
    ) -> AsyncIterator[Any]:
        self.requests.append(f"{method} {path} {params.get('request', '')}".strip())
        status = 422 if self.knows_no_requests and params else 200
        yield SimpleNamespace(status=status, raise_for_status=lambda: None)

    def report(self, seq: int, **fields: Any) -> None:
        self.payloads.put_nowait(report(seq=seq, **fields).model_dump_json(by_alias=True))


class Fixture:
    def __init__(self) -> None:
        self.pod = Pod()
        self.changes: asyncio.Queue[None] = asyncio.Queue()
        self.watcher = ReportWatcher(
            cast(SessionPodClient, self.pod), "uid-1", lambda: self.changes.put_nowait(None), {}
        )


@pytest.fixture
async def fixture() -> AsyncIterator[Fixture]:
    fixture = Fixture()
    yield fixture
    fixture.watcher.close()


async def test_each_new_report_is_a_change(fixture: Fixture) -> None:
    fixture.pod.report(1)
    fixture.pod.report(1)
    fixture.pod.report(2)
    await fixture.changes.get()
    await fixture.changes.get()
    assert fixture.watcher.report is not None
    assert fixture.watcher.report.seq == 2
    assert fixture.changes.empty()


async def test_there_is_no_report_once_the_stream_has_ended(fixture: Fixture) -> None:
    silent_since = fixture.watcher.silent_since
    fixture.pod.report(1)
    await fixture.changes.get()
    fixture.pod.payloads.put_nowait(None)
    await fixture.changes.get()
    assert fixture.watcher.report is None
    assert fixture.watcher.silent_since > silent_since
    fixture.pod.report(2)
    await fixture.changes.get()
    assert fixture.watcher.report is not None


async def test_reports_of_another_session_are_ignored(fixture: Fixture) -> None:
    """Its pod may have the IP address that this session's pod had before."""
    fixture.pod.report(1, session_uid="uid-2")
    fixture.pod.report(2, session_uid="uid-1")
    await fixture.changes.get()
    assert fixture.watcher.report is not None
    assert fixture.watcher.report.seq == 2
    assert fixture.pod.connections == 2, "the stream of the other pod was closed"


async def test_a_pod_gains_nothing_by_ending_its_streams(fixture: Fixture) -> None:
    for seq in range(2):
        fixture.pod.report(seq)
        await fixture.changes.get()
        fixture.pod.payloads.put_nowait(None)
        await fixture.changes.get()
    first, second = fixture.pod.paces[:2]
    assert first is second


async def test_it_ends_even_if_its_cancellation_passes_for_a_timeout(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    following = asyncio.Event()

    async def follow(*_: object) -> None:
        following.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            raise aiohttp.ServerTimeoutError from None

    monkeypatch.setattr(report_watcher, "RETRY_FIRST", 0.0)
    monkeypatch.setattr(fixture.pod, "follow", follow)
    fixture.pod.payloads.put_nowait(None)  # the stream ends, and the next one begins
    async with asyncio.timeout(60):
        await following.wait()
        fixture.watcher.close()
        await asyncio.wait((fixture.watcher._task,))


def test_a_pod_has_a_few_reports_per_second_read() -> None:
    pace = sse.Pace(report_watcher.REPORT_RATE, report_watcher.REPORT_BURST)
    event = (b"id: 1-1", b"event: state", b"data: " + b"x" * 500, b"")
    size = sum(len(line) + sse.LINE_COST for line in event)
    assert [pace.take(size, 0.0) for _ in range(100)] == [0.0] * 100, "at once"
    for _ in range(1000):
        wait = pace.take(size, 0.0)
    assert 1000 / 20 < wait < 1000 / 2


async def test_what_is_no_part_of_a_report_takes_no_memory(fixture: Fixture) -> None:
    payload = report(seq=1).model_dump_json(by_alias=True)
    fixture.pod.payloads.put_nowait(payload.removesuffix("}") + f',"more":"{"x" * 100_000}"}}')
    await fixture.changes.get()
    assert fixture.watcher.report == report(seq=1)
    assert fixture.watcher._payload is not None
    assert len(fixture.watcher._payload) < 1000


async def test_a_pod_that_refuses_the_token_is_a_change_once(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_watcher, "RETRY_FIRST", 0.001)
    monkeypatch.setattr(report_watcher, "RETRY_LAST", 0.001)
    fixture.pod.payloads.put_nowait(None)
    fixture.pod.errors = [Unauthorized() for _ in range(3)]
    fixture.pod.report(1)
    async with asyncio.timeout(60):
        await fixture.changes.get()
        assert fixture.watcher.unauthorized
        await fixture.changes.get()
    assert fixture.pod.errors == []
    assert fixture.watcher.report is not None, "the second change"
    assert not fixture.watcher.unauthorized


async def test_a_pod_that_cannot_be_reached_does_not_refuse_the_token(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_watcher, "RETRY_FIRST", 0.001)
    fixture.pod.payloads.put_nowait(None)
    fixture.pod.errors = [Unauthorized(), ConnectionRefusedError()]
    async with asyncio.timeout(60):
        await fixture.changes.get()
        fixture.pod.report(1)
        await fixture.changes.get()
    assert not fixture.watcher.unauthorized


@pytest.mark.parametrize("paused", [False, True])
async def test_a_pod_that_becomes_ready_is_tried_at_once(
    monkeypatch: pytest.MonkeyPatch, paused: bool
) -> None:
    monkeypatch.setattr(report_watcher, "RETRY_FIRST", 3600.0)
    fixture = Fixture()
    fixture.pod.report(1)
    await fixture.changes.get()
    fixture.pod.payloads.put_nowait(None)
    if paused:
        await fixture.changes.get()
        await asyncio.sleep(0)
    fixture.watcher.pod_is_ready()
    fixture.pod.report(2)
    async with asyncio.timeout(60):
        while (reported := fixture.watcher.report) is None or reported.seq == 1:
            await fixture.changes.get()
    fixture.watcher.close()


async def test_a_logout_succeeds_when_the_pod_reports_it(fixture: Fixture) -> None:
    results: asyncio.Queue[OrderFailed | None] = asyncio.Queue()
    fixture.pod.report(1, session_valid=True)
    await fixture.changes.get()
    for _ in range(2):
        fixture.watcher.logout("1", 60.0, results.put_nowait)
    fixture.pod.report(2, session_valid=True)
    fixture.pod.report(3, session_valid=False)
    assert await results.get() is None
    assert fixture.pod.requests == ["POST /v1/logout 1"], "it was under way already"


async def test_a_pod_that_has_not_read_its_volume_is_not_logged_out(fixture: Fixture) -> None:
    results: asyncio.Queue[OrderFailed | None] = asyncio.Queue()
    fixture.pod.report(1, session_valid=True)
    await fixture.changes.get()
    fixture.watcher.logout("1", 0.1, results.put_nowait)
    fixture.pod.report(2, session_valid=None)
    assert await results.get() is not None


async def test_a_pod_of_an_earlier_version_is_logged_out_without_a_record(
    fixture: Fixture,
) -> None:
    results: asyncio.Queue[OrderFailed | None] = asyncio.Queue()
    fixture.pod.knows_no_requests = True
    fixture.pod.report(1, session_valid=True)
    await fixture.changes.get()
    fixture.watcher.logout("1", 60.0, results.put_nowait)
    fixture.pod.report(2, session_valid=False)
    assert await results.get() is None
    assert fixture.pod.requests == ["POST /v1/logout 1", "POST /v1/logout"]


async def test_a_fulfilled_logout_is_only_recorded(fixture: Fixture) -> None:
    results: asyncio.Queue[OrderFailed | None] = asyncio.Queue()
    fixture.pod.report(1, session_valid=True)
    await fixture.changes.get()
    fixture.watcher.note_logout("1", results.put_nowait)
    assert await results.get() is None
    assert fixture.pod.requests == ["PUT /v1/logout 1"]


async def test_a_pod_is_not_told_the_webhooks_that_it_has(fixture: Fixture) -> None:
    """It was told while the plan was made."""
    results: asyncio.Queue[OrderFailed | None] = asyncio.Queue()
    fixture.pod.report(1, delivery_revision="1")
    await fixture.changes.get()
    fixture.watcher.configure_delivery(Configuration(revision="1"), results.put_nowait)
    assert await results.get() is None
    assert fixture.pod.requests == []


async def test_a_logout_that_takes_too_long_fails(fixture: Fixture) -> None:
    results: asyncio.Queue[OrderFailed | None] = asyncio.Queue()
    fixture.pod.report(1, session_valid=True)
    await fixture.changes.get()
    fixture.watcher.logout("1", 0.0, results.put_nowait)
    assert str(await results.get()) == "the pod did not answer in time"


def connector_error(number: int) -> Exception:
    return aiohttp.ClientConnectorError(
        cast(Any, SimpleNamespace(ssl=None, host="10.0.0.1", port=8080)), OSError(number, "")
    )


@pytest.mark.parametrize(
    ("error", "description"),
    [
        (TimeoutError(), "the pod did not answer in time"),
        (Unauthorized(), "the pod does not accept the session's token"),
        (ValueError("15551234567"), "the pod sent an invalid report"),
        (sse.EventTooLarge("15551234567"), "the pod sent an event of more than 512 KiB"),
        (ConnectionRefusedError("secret"), "the pod cannot be reached (ConnectionRefusedError)"),
        (
            connector_error(errno.EMFILE),
            "the operator has no free file descriptor for the connection",
        ),
        (
            connector_error(errno.ECONNREFUSED),
            "the pod cannot be reached (connection refused); a NetworkPolicy may block the "
            "connection",
        ),
        (
            aiohttp.ConnectionTimeoutError(),
            "the pod did not answer in time; a NetworkPolicy may block the connection",
        ),
        (
            aiohttp.ClientResponseError(cast(Any, None), (), status=503, message="secret"),
            "the pod answered 503",
        ),
        (UnexpectedStatus(500), "the pod answered 500"),
    ],
)
def test_errors_are_described_without_what_the_pod_has_sent(
    error: Exception, description: str
) -> None:
    assert describe_error(error) == description
