"""HTTP to the session pods, each with its session's own token."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import hdrs
from wasession_api import names, sse
from wasession_api.kube import PODS, SECRETS, Kube, Manifest, Unavailable

from wasession_gateway import metrics
from wasession_gateway.sessions import Session

log = logging.getLogger(__name__)
PORT = 8080
CONNECT_TIMEOUT = 5.0  # seconds
SILENCE = 25.0  # seconds; a session pod says something every ten
RETRY_FIRST, RETRY_LAST = 0.2, 5.0  # seconds
FOLLOWED = "state,message,ack"
Listener = Callable[[Session, sse.ServerSentEvent], Awaitable[None]]


class Unreachable(Exception):
    """There is no pod that could be asked, or it does not answer. Nothing was asked of it."""


class Interrupted(Exception):
    """The pod was asked and has not answered: what was asked may have been done."""


@dataclass(frozen=True, slots=True)
class _Endpoint:
    base: str
    token: str


class Pods:
    """The session pods of one namespace. Where a pod is, and its token, are found out when needed and then kept."""

    def __init__(self, kube: Kube, http: aiohttp.ClientSession, namespace: str) -> None:
        self._kube, self._http, self._namespace = kube, http, namespace
        self._endpoints: dict[str, _Endpoint] = {}  # by the session's UID

    def forget(self, uid: str) -> None:
        """Finds out anew next time where this session's pod is."""
        self._endpoints.pop(uid, None)

    @contextlib.asynccontextmanager
    async def ask(
        self, session: Session, method: str, path: str, timeout: float, headers: dict[str, str] | None = None, **more: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request. Raises ``Unreachable``, or ``Interrupted`` once the pod may have begun."""
        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_TIMEOUT)
        for last_try in (False, True):
            endpoint = await self._endpoint(session)
            sent = {**(headers or {}), hdrs.AUTHORIZATION: f"Bearer {endpoint.token}"}
            try:
                answer = await self._http.request(method, f"{endpoint.base}{path}", headers=sent, timeout=limits, **more)
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
                self.forget(session.uid)
                if last_try:
                    raise Unreachable("the session's pod does not answer") from error
                continue
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self.forget(session.uid)
                raise Interrupted("the session's pod has not answered") from error
            if answer.status == 401 and not last_try:  # the token has been renewed
                answer.release()
                self.forget(session.uid)
                continue
            try:
                yield answer
            finally:
                answer.release()
            return

    async def events(self, session: Session, last_id: str | None) -> AsyncIterator[sse.ServerSentEvent]:
        """The pod's events from its present state on, and the messages after ``last_id``; ends when the pod does.

        Raises what ``ask`` raises, and ``aiohttp.ClientError`` and ``TimeoutError``.
        """
        endpoint = await self._endpoint(session)
        headers = {hdrs.AUTHORIZATION: f"Bearer {endpoint.token}"} | ({"Last-Event-ID": last_id} if last_id else {})
        limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=SILENCE)
        url = f"{endpoint.base}/v1/events?types={FOLLOWED}"
        async with self._http.get(url, headers=headers, timeout=limits, raise_for_status=True) as stream:
            async for event in sse.read(stream.content):
                yield event

    async def _endpoint(self, session: Session) -> _Endpoint:
        found = self._endpoints.get(session.uid)
        if found is None:
            found = self._endpoints[session.uid] = await self._find(session)
        return found

    async def _find(self, session: Session) -> _Endpoint:
        name = names.object_name(session.name)
        try:
            pod = await self._kube.get(PODS, self._namespace, name)
            secret = await self._kube.get(SECRETS, self._namespace, name)
        except Unavailable as error:
            raise Unreachable("where the session's pod is cannot be found out now") from error
        if not _is_of(pod, session) or not _is_of(secret, session):
            raise Unreachable("the session has no pod")
        assert pod is not None
        assert secret is not None
        address, token = pod.get("status", {}).get("podIP"), secret.get("data", {}).get("token")
        if not address or not token:
            raise Unreachable("the session's pod is starting")
        host = f"[{address}]" if ":" in address else address
        return _Endpoint(f"http://{host}:{PORT}", base64.b64decode(token).decode())


def _is_of(found: Manifest | None, session: Session) -> bool:
    """Whether an object is of this very session: one of the same name may be of an earlier one."""
    owners = found["metadata"].get("ownerReferences", []) if found is not None else []
    return session.uid in [owner["uid"] for owner in owners]


class Follower:
    """Reads one session pod's events for as long as it is wanted, through the pod's restarts."""

    def __init__(self, pods: Pods, session: Session, heard: Listener) -> None:
        self.session = session
        self._pods, self._heard = pods, heard
        self._again = asyncio.Event()
        self._task = asyncio.create_task(self._follow())

    def update(self, session: Session) -> None:
        """The session has changed: a new pod is looked for at once."""
        if session.status.pod_uid != self.session.status.pod_uid or session.phase is not self.session.phase:
            self._again.set()
        self.session = session

    def close(self) -> None:
        self._task.cancel()

    async def _follow(self) -> None:
        delay, last_id = RETRY_FIRST, None
        with metrics.FOLLOWED_PODS.track_inprogress():
            while True:
                self._again.clear()
                try:
                    async for event in self._pods.events(self.session, last_id):
                        delay, last_id = RETRY_FIRST, event.id or last_id
                        await self._heard(self.session, event)
                except (Unreachable, Interrupted, aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                    log.debug("pod not heard", extra={"session": self.session.name, "error": type(error).__name__})
                self._pods.forget(self.session.uid)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await self._again.wait()
                delay = min(delay * 2, RETRY_LAST)
