"""HTTP to the session pods, each with its session's own token."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import hdrs
from wasession_api import names
from wasession_api.http import sse
from wasession_api.kube.client import PODS, SECRETS, KubeClient, Rejected, Unavailable
from wasession_api.kube.manifests import Manifest
from wasession_api.session_pod.tokens import tokens

from wasession_gateway import metrics
from wasession_gateway.session_cache import Session

log = logging.getLogger(__name__)
PORT = 8080
CONNECT_TIMEOUT = 5.0  # seconds
SILENCE = 25.0  # seconds; a session pod says something every ten
RETRY_FIRST, RETRY_LAST = 0.2, 5.0  # seconds
FOLLOWED = "state,message,ack"
Listener = Callable[[Session, sse.ServerSentEvent], Awaitable[None]]


class Unreachable(Exception):
    """There is no pod that could be asked, or it does not answer or take the token. Nothing was done."""


class Interrupted(Exception):
    """The pod was asked and has not answered: what was asked may have been done."""


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """Where a pod may be reached, and a token that it may take."""

    base: str
    token: str = field(repr=False)


class Pods:
    """The session pods of one namespace. Where a pod is, and its tokens, are found out when needed and then kept."""

    def __init__(self, kube: KubeClient, http: aiohttp.ClientSession, namespace: str) -> None:
        self._kube, self._http, self._namespace = kube, http, namespace
        self._endpoints: dict[
            str, list[_Endpoint]
        ] = {}  # by the session's UID; the one that was good last comes first

    def forget(self, uid: str) -> None:
        """Finds out anew next time where this session's pod is."""
        self._endpoints.pop(uid, None)

    @contextlib.asynccontextmanager
    async def ask(
        self,
        session: Session,
        method: str,
        path: str,
        timeout: float,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request. Raises ``Unreachable``, or ``Interrupted`` once the pod may have begun."""
        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_TIMEOUT)
        if isinstance(
            more.get("data"), aiohttp.StreamReader
        ):  # can be sent only once: the token must be right by then
            async with self.ask(session, "GET", "/v1/state", timeout):
                pass
        async with await self._answer(
            session, method, path, headers or {}, timeout=limits, **more
        ) as answer:
            yield answer

    async def events(
        self, session: Session, last_id: str | None
    ) -> AsyncIterator[sse.ServerSentEvent]:
        """The pod's events from its present state on, and the messages after ``last_id``; ends when the pod does.

        Raises what ``ask`` raises, and ``aiohttp.ClientError`` and ``TimeoutError``.
        """
        headers = {"Last-Event-ID": last_id} if last_id else {}
        limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=SILENCE)
        async with await self._answer(
            session, "GET", f"/v1/events?types={FOLLOWED}", headers, timeout=limits
        ) as stream:
            stream.raise_for_status()
            async for event in sse.read(stream.content):
                yield event

    async def _answer(
        self, session: Session, method: str, path: str, headers: dict[str, str], **more: Any
    ) -> aiohttp.ClientResponse:
        """The answer of the pod to the first token that it takes. What was known and is wrong is found out anew, once."""
        known = self._endpoints.get(session.uid, [])
        wrong: set[_Endpoint] = set()
        trouble: Exception | None = None
        for anew in (False, True) if known else (True,):
            for endpoint in await self._find(session, known) if anew else known:
                if endpoint in wrong:
                    continue
                sent = {**headers, hdrs.AUTHORIZATION: f"Bearer {endpoint.token}"}
                try:
                    answer = await self._http.request(
                        method, f"{endpoint.base}{path}", headers=sent, **more
                    )
                except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
                    trouble = error
                    break
                except (aiohttp.ClientError, TimeoutError, OSError) as error:
                    self.forget(session.uid)
                    raise Interrupted("the session's pod has not answered") from error
                if answer.status != 401:
                    self._prefer(session, endpoint)
                    return answer
                trouble = None
                wrong.add(endpoint)
                answer.release()
        self.forget(session.uid)
        raise Unreachable(
            "the session's pod does not " + ("know the gateway" if trouble is None else "answer")
        ) from trouble

    def _prefer(self, session: Session, good: _Endpoint) -> None:
        """The one that was good comes first; others stay, as the pod knows either token for a while."""
        known = self._endpoints.get(session.uid)
        if known is not None and known[0] != good and good in known:
            self._endpoints[session.uid] = [
                good,
                *(endpoint for endpoint in known if endpoint != good),
            ]

    async def _find(self, session: Session, stale: list[_Endpoint]) -> list[_Endpoint]:
        """Where the pod is, as the API server says it, unless another request has found that out in the meantime."""
        found = self._endpoints.get(session.uid, [])
        if not set(found).difference(stale):
            found = self._endpoints[session.uid] = await self._look_up(session)
        return found

    async def _look_up(self, session: Session) -> list[_Endpoint]:
        name = names.object_name(session.name)
        try:
            pod = await self._kube.get(PODS, self._namespace, name)
            secret = await self._kube.get(SECRETS, self._namespace, name)
        except (Unavailable, Rejected) as error:
            log.warning("pod not looked up", extra={"session": session.name, "error": str(error)})
            raise Unreachable("where the session's pod is cannot be found out now") from error
        if not _is_of(pod, session) or not _is_of(secret, session):
            raise Unreachable("the session has no pod")
        assert pod is not None
        assert secret is not None
        address, accepted = pod.get("status", {}).get("podIP"), tokens(secret)
        if not address or not accepted:
            raise Unreachable("the session's pod is starting")
        host = f"[{address}]" if ":" in address else address
        return [_Endpoint(f"http://{host}:{PORT}", token) for token in accepted]


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
        if (
            session.status.pod_uid != self.session.status.pod_uid
            or session.phase is not self.session.phase
        ):
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
                except (
                    Unreachable,
                    Interrupted,
                    aiohttp.ClientError,
                    TimeoutError,
                    OSError,
                    ValueError,
                ) as error:
                    log.debug(
                        "pod not heard",
                        extra={"session": self.session.name, "error": type(error).__name__},
                    )
                self._pods.forget(self.session.uid)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await self._again.wait()
                delay = min(delay * 2, RETRY_LAST)
