"""Sends events to webhooks: a request is signed as Standard Webhooks say."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import ssl
import time
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import aiohttp
from wasession_api.v1alpha1.delivery import Webhook

from wasession_pod.delivery.cloud_events import Request, signed_headers
from wasession_pod.delivery.guard import Forbidden, Guard, GuardedResolver
from wasession_pod.delivery.plan import Outcome
from wasession_pod.delivery.sender import Attempt, Secret, SecretUnavailable

READ_ANSWER, READ_PATIENCE = 64 * 2**10, 1.0  # bytes and seconds, of the body of an answer
REJECTED = frozenset({400, 413, 415, 422})
GONE, TOO_MANY, UNAVAILABLE = 410, 429, 503


class WebhookSender:
    """Sends to one webhook, if its class allows that. Redirects are not followed."""

    def __init__(
        self, webhook: Webhook, http: aiohttp.ClientSession, guard: Guard, keys: Secret[list[bytes]]
    ) -> None:
        self._webhook, self._http, self._guard, self._keys = webhook, http, guard, keys

    async def attempt(self, request: Request) -> Attempt:
        webhook, timeout = self._webhook, self._webhook.timeout.total_seconds()
        try:
            self._guard.check_host(urlsplit(webhook.url).hostname or "")
            keys = await self._keys.read(webhook.signing_key)
            headers = signed_headers(request, keys, int(time.time()))
            async with contextlib.AsyncExitStack() as stack:
                async with asyncio.timeout(timeout):
                    response = await stack.enter_async_context(
                        self._http.post(
                            webhook.url, data=request.body, headers=headers, allow_redirects=False
                        )
                    )
                await _read_rest(response)
                return judge(response.status, response.headers.get("Retry-After"))
        except (Forbidden, SecretUnavailable) as error:
            return Attempt(Outcome.FAILED, str(error))
        except TimeoutError:
            return Attempt(Outcome.FAILED, f"no answer within {timeout:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Attempt(Outcome.FAILED, describe(error))


async def _read_rest(response: aiohttp.ClientResponse) -> None:
    """Read the answer's body, so that its connection can be used again; else it is closed."""
    with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError):
        async with asyncio.timeout(READ_PATIENCE):
            with contextlib.suppress(asyncio.IncompleteReadError):
                await response.content.readexactly(READ_ANSWER + 1)


def judge(status: int, retry_after: str | None = None, now: float | None = None) -> Attempt:
    """Return what an answer means. See ``Outcome``."""
    if 200 <= status < 300:
        return Attempt(Outcome.DELIVERED)
    error = f"HTTP {status}"
    if status == GONE:
        return Attempt(Outcome.GONE, error)
    wish = parse_retry_after(retry_after, time.time() if now is None else now)
    if status == TOO_MANY or (status == UNAVAILABLE and wish > 0):
        return Attempt(Outcome.THROTTLED, error, wish)
    return Attempt(Outcome.REJECTED if status in REJECTED else Outcome.FAILED, error)


def parse_retry_after(text: str | None, now: float) -> float:
    """Return the seconds of a Retry-After (RFC 9110, 10.2.3); 0 without a valid one."""
    if text is None:
        return 0.0
    if text.strip().isdecimal():
        return float(text)
    with contextlib.suppress(ValueError):
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now)
    return 0.0


def describe(error: Exception) -> str:
    """Return what has failed, in words that have no content of the answer."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return f"the certificate is not accepted: {error.certificate_error}"
        case aiohttp.ClientConnectorSSLError(os_error=ssl.SSLError(reason=str(reason))):
            return f"TLS has failed: {reason.replace('_', ' ').lower()}"
        case aiohttp.ClientConnectorError() if isinstance(error.os_error, Forbidden):
            return str(error.os_error)
        case aiohttp.ClientConnectorError():
            return f"cannot connect: {error.os_error.strerror or error.os_error}"
        case aiohttp.ServerDisconnectedError() | ConnectionError():
            return "the connection was closed before the answer"
        case aiohttp.ClientResponseError() | aiohttp.ClientPayloadError():
            return "the answer is not HTTP"
    return type(error).__name__


@contextlib.asynccontextmanager
async def client(guard: Guard, authorities: ssl.SSLContext) -> AsyncIterator[aiohttp.ClientSession]:
    """Yield a client for webhooks; it heeds neither proxies nor cookies."""
    connector = aiohttp.TCPConnector(
        limit=0,  # each webhook has its own, so that none waits for another one's
        ssl=authorities,
        resolver=GuardedResolver(guard),
        use_dns_cache=False,  # each connection is checked
    )
    async with aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
    ) as http:
        yield http
