"""HTTP to the session pods, each with its session's own tokens, which are derived."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
from pydantic import ValidationError
from wasession_api import names
from wasession_api.http.sse import EventTooLarge, Pace, ServerSentEvent
from wasession_api.kube.client import PODS, KubeClient, Rejected, Unavailable
from wasession_api.kube.manifests import Manifest
from wasession_api.session_pod.client import (
    CONNECT_TIMEOUT,
    SessionPodClient,
    Unauthorized,
    base_url,
    read_body,
)
from wasession_api.session_pod.events import EventKind, EventPage, Gap, GapReason
from wasession_api.v1alpha1 import Phase

from wasession_gateway import metrics
from wasession_gateway.session import Session
from wasession_gateway.session_key import KeyMissing, SessionKey

log = logging.getLogger(__name__)
RETRY_FIRST, RETRY_LAST = 0.2, 5.0  # seconds
PAGE_TIMEOUT = 15.0  # seconds
MAXIMUM_PAGE = 4 * 2**20  # bytes, of a page of events
OnEvent = Callable[[Session, ServerSentEvent], Awaitable[None]]


class Unreachable(Exception):
    """The pod could not be asked: there is none, it does not answer, or it rejects the tokens.

    Nothing was done.
    """


class Interrupted(Exception):
    """The pod was asked but did not answer: the request may have taken effect."""


class NoEvents(Exception):
    """The pod was asked for a page of events and answered with something else, or too much."""


class _Pod:
    """A session's pod, as last looked up. ``epoch`` is that of its token, which only rises."""

    def __init__(self, http: aiohttp.ClientSession, base: str, key: SessionKey, uid: str) -> None:
        self.client = SessionPodClient(http, base, self._read_tokens)
        self.epoch = 0
        self._key, self._uid = key, uid

    async def _read_tokens(self) -> list[str]:
        return self._key.tokens(self._uid, self.epoch)


class Pods:
    """The session pods of one namespace.

    A pod's address is looked up on first use and cached until it no longer works.
    """

    def __init__(
        self, kube: KubeClient, http: aiohttp.ClientSession, namespace: str, key: SessionKey
    ) -> None:
        self._kube, self._http, self._namespace, self._key = kube, http, namespace, key
        self._pods: dict[str, _Pod] = {}  # by the session's UID
        self._lookups: dict[str, asyncio.Task[str]] = {}  # by the session's UID

    def forget(self, uid: str) -> None:
        """Look the session's pod up again on its next use."""
        self._pods.pop(uid, None)

    async def client(self, session: Session) -> SessionPodClient:
        """Return a client of the session's pod; raises ``Unreachable``."""
        return (await self._pod(session)).client

    @contextlib.asynccontextmanager
    async def request(
        self,
        session: Session,
        method: str,
        path: str,
        timeout: float,
        *,
        any_length: bool = False,
        **options: Any,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yield the pod's response to one request; ``timeout`` is in seconds, for all of it.

        For a response of ``any_length``, it is for each part. For a body that the caller is still
        sending, it begins with the end of the body: the pod ends a body that stops arriving. Raises
        ``Unreachable``, or ``Interrupted`` once the pod may have begun.
        """
        if isinstance(options.get("data"), aiohttp.StreamReader):
            # The body can be sent only once, so find the right token first.
            async with self.request(session, "GET", "/v1/state", timeout):
                pass
            any_length = True
        options["timeout"] = (
            aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT, sock_read=timeout)
            if any_length
            else aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_TIMEOUT)
        )
        async with contextlib.AsyncExitStack() as stack:
            yield await self._open(stack, session, method, path, **options)

    async def events(self, session: Session, after: str, limit: int) -> tuple[EventPage, int]:
        """Return up to ``limit`` events after a cursor, and how many bytes they have.

        Raises ``Unreachable``, ``Interrupted`` or ``NoEvents``.
        """
        while len(body := await self._read_page(session, after, limit)) == MAXIMUM_PAGE:
            if limit == 1:
                raise NoEvents("an event is too large")
            limit = max(limit // 8, 1)
        try:
            return EventPage.model_validate_json(body), len(body)
        except ValidationError as error:
            raise NoEvents("the page is malformed") from error

    async def _read_page(self, session: Session, after: str, limit: int) -> bytes:
        query = {"after": after, "limit": str(limit)}
        headers = {"Accept": "application/json"}
        try:
            async with self.request(
                session, "GET", "/v1/events", PAGE_TIMEOUT, params=query, headers=headers
            ) as response:
                if response.status == 503:
                    raise Unreachable("the session's pod cannot answer at the moment")
                if response.status != 200 or response.content_type != "application/json":
                    raise NoEvents(f"HTTP status {response.status}")
                return await read_body(response, MAXIMUM_PAGE)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Interrupted("the session's pod did not answer in full") from error

    async def _open(
        self,
        stack: contextlib.AsyncExitStack,
        session: Session,
        method: str,
        path: str,
        **options: Any,
    ) -> aiohttp.ClientResponse:
        """Return the response, open until ``stack`` is left.

        A cached pod that cannot be connected to, or rejects the tokens, is looked up again, once.
        """
        cached = session.uid in self._pods
        while True:
            pod = await self._pod(session)
            try:
                return await stack.enter_async_context(pod.client.request(method, path, **options))
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
                self.forget(session.uid)
                if not cached:
                    raise Unreachable("the session's pod does not answer") from error
            except Unauthorized as error:  # another session's pod may have the address by now
                self.forget(session.uid)
                if not cached or (await self._pod(session)).client.base == pod.client.base:
                    raise Unreachable("the session's pod rejects the gateway's token") from error
            except KeyMissing as error:
                raise Unreachable("the gateway has no key for session pods yet") from error
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self.forget(session.uid)
                raise Interrupted("the session's pod did not answer") from error
            cached = False

    async def _pod(self, session: Session) -> _Pod:
        if session.uid not in self._pods:
            pod = _Pod(self._http, await self._look_up(session), self._key, session.uid)
            self._pods.setdefault(session.uid, pod)  # another request may have been faster
        pod = self._pods[session.uid]
        pod.epoch = max(pod.epoch, session.status.token_epoch)
        return pod

    async def _look_up(self, session: Session) -> str:
        """Share one lookup among the requests that need it at the same time."""
        lookup = self._lookups.get(session.uid)
        if lookup is None:
            lookup = asyncio.create_task(self._read_address(session))
            self._lookups[session.uid] = lookup
            lookup.add_done_callback(lambda done: self._looked_up(session.uid, done))
        return await asyncio.shield(lookup)

    def _looked_up(self, uid: str, lookup: asyncio.Task[str]) -> None:
        del self._lookups[uid]
        if not lookup.cancelled():
            lookup.exception()  # retrieved here too, as all who asked may have gone

    async def _read_address(self, session: Session) -> str:
        """Read the pod's address from the API server; raises ``Unreachable``."""
        name = names.object_name(session.name)
        try:
            pod = await self._kube.get(PODS, self._namespace, name)
        except (Unavailable, Rejected) as error:
            log.warning(
                "cannot read the session's pod; failing the request",
                extra={"session": session.name, "pod": name, "error": str(error)},
            )
            raise Unreachable("the session's pod cannot be looked up at the moment") from error
        if pod is None or not _belongs_to(pod, session):
            asleep = "the session is asleep: POST …/wake, or a send, wakes it"
            raise Unreachable(
                asleep if session.phase is Phase.HIBERNATED else "the session has no pod"
            )
        if not (address := pod.get("status", {}).get("podIP")):
            raise Unreachable("the session's pod is starting")
        return base_url(address)


def _belongs_to(obj: Manifest, session: Session) -> bool:
    """Whether an object belongs to this very session: a predecessor may have had the same name."""
    owners = obj["metadata"].get("ownerReferences", [])
    return session.uid in [owner["uid"] for owner in owners]


class PodEventStream:
    """Pass one session pod's events to ``on_event`` until closed, through the pod's restarts.

    Begins after the event ``last_id``, by default with the present; each later connection begins
    after the last event that ``on_event`` has had.
    """

    def __init__(
        self, pods: Pods, session: Session, on_event: OnEvent, last_id: str | None = None
    ) -> None:
        self.session = session
        self.last_id = last_id
        self.is_open = False  # whether the present connection has had events
        self._pods, self._on_event = pods, on_event
        self._reconnect = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def update(self, session: Session) -> None:
        """Take the session's new state; reconnect at once to a new pod."""
        if (
            session.status.pod_uid != self.session.status.pod_uid
            or session.phase is not self.session.phase
        ):
            self._reconnect.set()
        self.session = session

    def close(self) -> None:
        self._task.cancel()

    async def _run(self) -> None:
        delay, pace = RETRY_FIRST, Pace()
        with metrics.POD_EVENT_STREAMS.track_inprogress():
            while True:
                self._reconnect.clear()
                try:
                    client = await self._pods.client(self.session)
                    stream = client.events(last_id=self.last_id, pace=pace)
                    async with contextlib.aclosing(stream) as events:
                        async for event in events:
                            self.is_open, delay = True, RETRY_FIRST
                            await self._pass_on(event)
                except EventTooLarge as error:
                    await self._skip(error.id)
                except (
                    Unreachable,
                    Interrupted,
                    Unauthorized,
                    KeyMissing,
                    aiohttp.ClientError,
                    TimeoutError,
                    OSError,
                    ValueError,
                ) as error:
                    log.debug(
                        "event stream of the session pod failed; reconnecting",
                        extra={"session": self.session.name, "error": type(error).__name__},
                    )
                self.is_open = False
                self._pods.forget(self.session.uid)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await self._reconnect.wait()
                delay = min(delay * 2, RETRY_LAST)

    async def _pass_on(self, event: ServerSentEvent) -> None:
        # A state has no ID of its own: only the first one says where the stream begins.
        if event.type != EventKind.STATE or self.last_id is None:
            self.last_id = event.id or self.last_id
        await self._on_event(self.session, event)

    async def _skip(self, event_id: str | None) -> None:
        """Go on after an event that is too large to be read, in whose place a gap is told."""
        log.warning(
            "an event of the session pod is too large; its clients get a gap in its place",
            extra={"session": self.session.name},
        )
        if event_id not in (None, self.last_id):
            gap = Gap(reason=GapReason.UNREADABLE).model_dump_json()
            await self._pass_on(ServerSentEvent(EventKind.GAP, gap, event_id))
