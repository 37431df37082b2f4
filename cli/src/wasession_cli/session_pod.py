"""The session pod's API as the commands use it, with its errors as exit codes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Generic, NamedTuple, TypeVar

import aiohttp
from pydantic import ValidationError
from wasession_api.base import Observed
from wasession_api.http.sse import EventTooLarge
from wasession_api.session_pod.client import (
    SessionPodClient,
    Unauthorized,
    base_url,
    read_body,
)
from wasession_api.session_pod.delivery import DeadLetter, DeliveryDetails, Replayed
from wasession_api.session_pod.link_code import LinkCode
from wasession_api.session_pod.messages import SentMessage
from wasession_api.session_pod.report import Report

from wasession_cli.exits import Failure, Forbidden, Invalid, NotFound, NotReady, Unreachable
from wasession_cli.portforward import PortForwardConnector

M = TypeVar("M", bound=Observed)
PNG, MAXIMUM_PICTURE = b"\x89PNG\r\n\x1a\n", 8 * 2**20  # its first bytes, and how many at most
# Longer than the pod's own limits: a send awaits WhatsApp's answer, a logout its confirmation.
TIMEOUT = aiohttp.ClientTimeout(total=90)


class Items(Observed, Generic[M]):
    """A list that has one page."""

    items: list[M]


class Busy(NotReady):
    """The session is not Ready, or an earlier attempt still runs: the request may be retried."""


class CurrentCode(NamedTuple):
    """A code, and how many seconds it is still valid by the pod's clock; None without a limit."""

    code: LinkCode
    seconds_left: float | None


class SessionPod:
    """One session pod. Raises ``Unreachable`` where a retry may help, else ``Failure``."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        connector: PortForwardConnector,
        tokens: Callable[[], Awaitable[list[str]]],
    ) -> None:
        self._client = SessionPodClient(http, base_url("localhost"), tokens)
        self._connector = connector

    async def reports(self) -> AsyncIterator[Report]:
        """Yield the state now and after each change; raise ``Unreachable`` when the pod ends."""
        with self._failures():
            async for event in self._client.events("state"):
                if event.type == "state":
                    yield _parse(Report, event.data)
        raise Unreachable("the session pod closed the connection")

    async def link_code(self) -> CurrentCode | None:
        """Return the current code to link a phone with, if there is one."""
        try:
            async with self._request("GET", "/v1/pairing") as response:
                code = _parse(LinkCode, await response.text())
                date = response.headers.get("Date")
        except NotFound:
            return None
        if code.expires_at is None:
            return CurrentCode(code, None)
        now = parsedate_to_datetime(date) if date else datetime.now(UTC)
        return CurrentCode(code, (code.expires_at - now).total_seconds())

    async def renew_code(self) -> None:
        """Request a new code, also after the last round."""
        async with self._request("POST", "/v1/pairing/refresh"):
            pass

    async def logout(self) -> None:
        """End the login; return when WhatsApp has confirmed it."""
        async with self._request("POST", "/v1/logout"):
            pass

    async def send(
        self,
        to: str,
        text: str | None,
        file: tuple[str, bytes] | None,
        reply_to: str | None,
        key: str,
    ) -> tuple[SentMessage, bool]:
        """Send a text, or a file (name and content) with the text as its caption.

        Return the message, and whether an earlier attempt with the idempotency key sent it.
        """
        fields = {"to": to} | ({"replyTo": reply_to} if reply_to else {})
        body: dict[str, Any]
        if file is None:
            body = {"json": fields | {"text": text}}
        else:
            form = aiohttp.FormData(fields | ({"caption": text} if text else {}))
            form.add_field("file", file[1], filename=file[0])
            body = {"data": form}
        headers = {"Idempotency-Key": key}
        async with self._request("POST", "/v1/messages", headers=headers, **body) as response:
            message = _parse(SentMessage, await response.text())
            return message, response.headers.get("Idempotent-Replayed") == "true"

    async def screenshot(self) -> bytes:
        """Return the page as PNG; raise ``Forbidden`` if nobody may look at it."""
        async with self._request("GET", "/v1/screenshot") as response:
            picture = await read_body(response, MAXIMUM_PICTURE)
        if not picture.startswith(PNG):
            raise Failure("the session pod has sent no picture")
        return picture

    async def deliveries(self) -> list[DeliveryDetails]:
        """Return how the deliveries to the session's webhooks and sinks are doing."""
        async with self._request("GET", "/v1/deliveries") as response:
            return _parse(Items[DeliveryDetails], await response.text()).items

    async def dead_letters(self, name: str) -> list[DeadLetter]:
        """Return the events that were given up, latest first."""
        async with self._request("GET", f"/v1/deliveries/{name}/dead-letters") as response:
            return _parse(Items[DeadLetter], await response.text()).items

    async def replay(self, name: str, after: str) -> None:
        """Deliver everything after an event again."""
        path = f"/v1/deliveries/{name}/replay"
        async with self._request("POST", path, json={"after": after}):
            pass

    async def replay_dead_letters(self, name: str) -> int:
        """Deliver the dead letters again that the pod still has; return how many."""
        path = f"/v1/deliveries/{name}/dead-letters/replay"
        async with self._request("POST", path) as response:
            return _parse(Replayed, await response.text()).count

    async def pause(self, name: str, *, paused: bool) -> None:
        """Let the events of a webhook or sink wait, or deliver them again."""
        verb = "pause" if paused else "resume"
        async with self._request("POST", f"/v1/deliveries/{name}/{verb}"):
            pass

    @contextlib.asynccontextmanager
    async def _request(
        self, method: str, path: str, **options: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        with self._failures():
            async with self._client.request(method, path, timeout=TIMEOUT, **options) as response:
                if response.status >= 400:
                    raise _to_failure(response.status, await response.text())
                yield response

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """Raise the failure that an exception of the client stands for."""
        try:
            yield
        except Unauthorized:
            raise Unreachable("the session pod rejects its token: it is being replaced") from None
        except (aiohttp.ClientError, TimeoutError, EventTooLarge) as error:
            cause = self._connector.last_error or str(error) or "no answer"
            raise Unreachable(f"the session pod is unreachable: {cause}") from None


def _to_failure(status: int, text: str) -> Failure:
    """Return the failure that a problem response stands for."""
    try:
        detail = str(json.loads(text)["detail"])
    except (ValueError, KeyError, TypeError):
        detail = f"the session pod answered {status}"
    match status:
        case 400 | 413 | 415 | 422:
            return Invalid(detail)
        case 403:
            return Forbidden(detail)
        case 404:
            return NotFound(detail)
        case 409 | 503:
            return Busy(detail)
        case 504:
            return NotReady(detail)
        case _:
            return Failure(detail)


def _parse(model: type[M], text: str) -> M:
    try:
        return model.model_validate_json(text)
    except ValidationError:
        raise Failure(
            "the session pod's answer is invalid",
            "does its version match this command's?",
        ) from None
