"""The HTTP API of a session pod, as far as the commands need it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import aiohttp
from pydantic import Field, ValidationError
from wasession_api.base import Observed, Time
from wasession_api.http import sse
from wasession_api.session_pod.messages import SentMessage
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import PairingMethod

from wasession_cli.exits import Failure, NotFound, NotReady, Unreachable
from wasession_cli.portforward import PortForwardConnector

M = TypeVar("M", bound=Observed)
TIMEOUT = aiohttp.ClientTimeout(
    total=90
)  # a send waits for WhatsApp's answer, a logout for its proof
STREAM = aiohttp.ClientTimeout(total=None, sock_read=30)  # the pod says something every 10 s


class Offer(Observed):
    """A code that a phone can use now. Whoever reads it can take the account."""

    method: PairingMethod
    attempt: int = Field(ge=0)
    code: str = Field(max_length=4096, repr=False)
    expires_at: Time | None = None


class Pod:
    """One session pod. Raises ``Unreachable`` where another try may help, else ``Failure``."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        connector: PortForwardConnector,
        tokens: Callable[[], Awaitable[list[str]]],
    ) -> None:
        """``tokens`` reads the ones that the pod may take, the present one first."""
        self._http, self._connector, self._tokens = http, connector, tokens
        self._good: str | None = None  # the one that it took last

    async def reports(self) -> AsyncIterator[Report]:
        """The state now and after each change; ends with ``Unreachable`` when the pod goes."""
        async with self._answer(
            "GET", "v1/events", params={"types": "state"}, timeout=STREAM
        ) as response:
            async for event in sse.read(response.content):
                if event.type == "state":
                    yield _read(Report, event.data)
        raise Unreachable("the session pod has ended the connection")

    async def offer(self) -> tuple[Offer, float | None] | None:
        """The code that a phone can use now, and how many seconds are left of it by the pod's clock; None without one."""
        try:
            async with self._answer("GET", "v1/pairing") as response:
                offer = _read(Offer, await response.text())
                now = response.headers.get("Date")
        except NotFound:
            return None
        if offer.expires_at is None:
            return offer, None
        clock = parsedate_to_datetime(now) if now else datetime.now(UTC)
        return offer, (offer.expires_at - clock).total_seconds()

    async def renew(self) -> None:
        """Asks for a new code, also after the last round."""
        async with self._answer("POST", "v1/pairing/refresh"):
            pass

    async def logout(self) -> None:
        """Ends the login; returns when WhatsApp has confirmed it."""
        async with self._answer("POST", "v1/logout"):
            pass

    async def send(
        self,
        to: str,
        text: str | None,
        file: tuple[str, bytes] | None,
        reply_to: str | None,
        key: str,
    ) -> tuple[SentMessage, bool]:
        """Sends a text, or a file as name and content; returns the answer, and whether it is that of an earlier try."""
        fields = {"to": to} | ({"replyTo": reply_to} if reply_to else {})
        if file is None:
            options: dict[str, Any] = {"json": fields | {"text": text}}
        else:
            form = aiohttp.FormData(fields | ({"caption": text} if text else {}))
            form.add_field("file", file[1], filename=file[0])
            options = {"data": form}
        async with self._answer(
            "POST", "v1/messages", headers={"Idempotency-Key": key}, **options
        ) as response:
            return _read(SentMessage, await response.text()), response.headers.get(
                "Idempotent-Replayed"
            ) == "true"

    @asynccontextmanager
    async def _answer(
        self, verb: str, path: str, timeout: aiohttp.ClientTimeout = TIMEOUT, **options: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            async with await self._first_taken(verb, path, timeout=timeout, **options) as response:
                if response.status >= 400:
                    raise _refusal(response.status, await response.text())
                yield response
        except (aiohttp.ClientError, TimeoutError) as error:
            trouble = self._connector.trouble or str(error) or "it does not answer"
            raise Unreachable(f"the session pod cannot be reached: {trouble}") from None

    async def _first_taken(self, verb: str, path: str, **options: Any) -> aiohttp.ClientResponse:
        """The answer to the first token that the pod takes, each being shown once: they are rotated while it runs."""
        headers = options.pop("headers", {})
        async for token in self._to_show():
            shown = {**headers, "Authorization": f"Bearer {token}"}
            response = await self._http.request(verb, path, headers=shown, **options)
            if response.status != 401:
                self._good = token
                return response
            response.release()
        raise Unreachable("the session pod does not take its token: it is being replaced")

    async def _to_show(self) -> AsyncIterator[str]:
        """The token that was good, and when it is no longer those of the Secret as it is now."""
        good = self._good
        if good is not None:
            yield good
        for token in await self._tokens():
            if token != good:
                yield token


def _refusal(status: int, text: str) -> Failure:
    """What a problem+json answer means for the user."""
    try:
        detail = str(json.loads(text)["detail"])
    except (ValueError, KeyError, TypeError):
        detail = f"the session pod answered {status}"
    match status:
        case 404:
            return NotFound(detail)
        case 409 | 503:
            return Busy(detail)
        case 504:
            return NotReady(detail)
        case _:
            return Failure(detail)


class Busy(NotReady):
    """Not now: the session is not Ready, or an earlier try is still under way. The same request may be sent again."""


def _read(model: type[M], text: str) -> M:
    try:
        return model.model_validate_json(text)
    except ValidationError:
        raise Failure(
            "the session pod's answer cannot be understood",
            "is it of another version than this command?",
        ) from None
