"""Sends events to a stream of NATS JetStream, and waits until it has stored them.

The client library is to connect to addresses that were checked, and to no others that servers name:
so it never reconnects by itself. A connection that has ended is replaced with the next event.
"""

from __future__ import annotations

import asyncio
import binascii
import contextlib
import ipaddress
import re
import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import nats.aio.client
import nats.errors
import nats.js.errors
import nats.protocol.parser
import nkeys
from nats.js.api import Header
from wasession_api.v1alpha1.delivery import Sink

from wasession_pod.delivery.cloud_events import CONTENT_TYPE, Request
from wasession_pod.delivery.guard import Forbidden, Guard, GuardedResolver
from wasession_pod.delivery.plan import Outcome
from wasession_pod.delivery.sender import Attempt, Secret, SecretUnavailable

DEFAULT_PORT = 4222
CONNECT_TIMEOUT = 5  # seconds, of one address
PING_INTERVAL, UNANSWERED_PINGS = 20, 2  # seconds; a server that is silent for longer is gone
CLOSING = 1.0  # seconds
LARGEST_ANSWER = 256 * 2**10  # bytes that the server may send without an end
CREDENTIALS = re.compile(
    r"-+BEGIN NATS USER JWT-+\s+(?P<jwt>\S+)\s+-+END NATS USER JWT-+.*"
    r"-+BEGIN USER NKEY SEED-+\s+(?P<seed>\S+)\s+-+END USER NKEY SEED-+",
    re.DOTALL,
)
# As nats-py reads it, line by line.
CREDENTIALS_FILE = (
    "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n"
    "-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
)
# JetStream's errors, by their code: server/errors.json of nats-server.
TOO_LARGE = 10054
ERRORS = {
    10023: "the server has too few resources",
    10047: "the server's storage is full",
    10060: "the subject is of another stream",
    TOO_LARGE: "the event is larger than the stream takes",
    10077: "the stream is full",
}


class Login(NamedTuple):
    """How to log in: either with a credentials file's content or with a user and password."""

    credentials: str | None = None
    user: str | None = None
    password: str | None = None


class Refused(Exception):
    """The server does not let us in, or does not store; the message says why."""


def parse_login(text: str) -> Login:
    """Return the login of a Secret's value; raise ``ValueError``."""
    if "BEGIN" not in text:
        user, colon, password = text.strip().partition(":")
        if not user or not colon:
            raise ValueError("it is neither a NATS credentials file nor user:password")
        return Login(user=user, password=password)
    if (found := CREDENTIALS.search(text)) is None:
        raise ValueError("it is no NATS credentials file")
    try:
        nkeys.from_seed(bytearray(found["seed"].encode()))
    except (nkeys.NkeysError, binascii.Error, ValueError):
        raise ValueError("its seed is no NATS seed") from None
    return Login(credentials=CREDENTIALS_FILE.format(**found.groupdict()))


def subject(template: str, of: Mapping[str, str]) -> str:
    """Return a subject with values in place of ``{namespace}``, ``{session}`` and ``{kind}``."""
    for name, value in of.items():
        template = template.replace(f"{{{name}}}", value.replace(".", "_"))
    return template


def size_of(headers: Mapping[str, str]) -> int:
    """Return how many bytes headers have as NATS sends them."""
    lines = sum(len(f"{name}: {value}\r\n") for name, value in headers.items())
    return len("NATS/1.0\r\n") + lines + len("\r\n")


class NatsSender:
    """Sends to the stream of one sink. ``session``: its namespace and name, for subjects."""

    def __init__(
        self,
        sink: Sink,
        guard: Guard,
        logins: Secret[Login],
        authorities: ssl.SSLContext,
        session: Mapping[str, str],
    ) -> None:
        self._sink, self._guard, self._logins = sink, guard, logins
        self._authorities, self._session = authorities, session
        self._resolver = GuardedResolver(guard)
        self._connecting: asyncio.Task[_Connection] | None = None

    async def attempt(self, request: Request) -> Attempt:
        timeout = self._sink.timeout.total_seconds()
        connection: _Connection | None = None
        received = 0
        try:
            async with asyncio.timeout(timeout):
                connection = await self._connect()
                received = connection.received
                await self._publish(connection, request)
        except TimeoutError:
            error = f"no answer within {timeout:g} s"
            if connection is not None:
                error = connection.error or error
                if connection.received == received:  # of others' either
                    await connection.close()
            return Attempt(Outcome.FAILED, error)
        except nats.errors.MaxPayloadError:
            return Attempt(Outcome.REJECTED, "the event is larger than the server takes")
        except nats.js.errors.APIError as error:
            outcome = Outcome.REJECTED if error.err_code == TOO_LARGE else Outcome.FAILED
            return Attempt(outcome, ERRORS.get(error.err_code or 0, f"error {error.err_code}"))
        except (Forbidden, SecretUnavailable, Refused) as error:
            return Attempt(Outcome.FAILED, str(error))
        except Exception as error:  # whatever the library makes of answers that are not NATS
            return Attempt(Outcome.FAILED, f"the connection has failed: {type(error).__name__}")
        connection.error = None
        return Attempt(Outcome.DELIVERED)

    async def _publish(self, connection: _Connection, request: Request) -> None:
        wanted = self._sink.nats
        to = subject(wanted.subject, {**self._session, "kind": request.kind})
        headers = {
            Header.MSG_ID.value: request.id,
            Header.EXPECTED_STREAM.value: wanted.stream,
            "Content-Type": CONTENT_TYPE,
        }
        if size_of(headers) + len(request.body) > connection.largest:
            raise nats.errors.MaxPayloadError
        timeout = self._sink.timeout.total_seconds()
        publishing = asyncio.ensure_future(
            connection.stream.publish(to, request.body, timeout=timeout, headers=headers)
        )
        ended = asyncio.ensure_future(connection.ended.wait())
        try:
            await asyncio.wait((publishing, ended), return_when=asyncio.FIRST_COMPLETED)
            if not publishing.done():
                raise Refused(connection.error or "the connection was closed before the answer")
            await publishing
        except nats.js.errors.NoStreamResponseError:
            raise Refused(f"no stream takes the subject {to}") from None
        finally:
            for one in (publishing, ended):
                one.cancel()

    # --- the connection ---------------------------------------------------------------------------

    async def _connect(self) -> _Connection:
        """Return the connection, which all attempts share; a new one if it has ended."""
        if self._connecting is None or _has_ended(self._connecting):
            self._connecting = asyncio.create_task(self._open())
        return await asyncio.shield(self._connecting)

    async def _open(self) -> _Connection:
        login = Login()
        if (key := self._sink.nats.credentials) is not None:
            login = await self._logins.read(key)
        failure = "no server has an address"
        for server, host in await self._addresses():
            connection = _Connection()
            try:
                await connection.open(server, host, login, self._authorities)
            except Exception as error:  # whatever the library makes of answers that are not NATS
                failure = connection.error or describe(error)
            else:
                if connection.is_connected:
                    return connection
                failure = "the server does not answer as NATS does"
                await connection.close()
        raise Refused(failure)

    async def _addresses(self) -> list[tuple[str, str]]:
        """Return the servers with addresses in place of names, and their names.

        Raises ``Forbidden`` if one is out of bounds, ``Refused`` if no name is known.
        """
        found, unknown = list[tuple[str, str]](), list[str]()
        for server in self._sink.nats.servers:
            parts = urlsplit(server)
            host, port = parts.hostname or "", parts.port or DEFAULT_PORT
            self._guard.check_host(host)
            try:
                addresses = await self._resolve(host, port)
            except Forbidden:
                raise
            except OSError:
                unknown.append(host)
            else:
                found += [(f"{parts.scheme}://{one}:{port}", host) for one in addresses]
        if not found and unknown:
            raise Refused(f"cannot resolve {', '.join(unknown)}")
        return found

    async def _resolve(self, host: str, port: int) -> list[str]:
        """Return the addresses of a host as they stand in URLs."""
        try:
            ipaddress.ip_address(host)
        except ValueError:
            addresses = [one["host"] for one in await self._resolver.resolve(host, port)]
        else:
            addresses = [host]
        return [f"[{one}]" if ":" in one else one for one in addresses]

    async def close(self) -> None:
        """End the connection."""
        connecting, self._connecting = self._connecting, None
        if connecting is None:
            return
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)
        if _is_open(connecting):
            await connecting.result().close()


def _is_open(connecting: asyncio.Task[_Connection]) -> bool:
    return connecting.done() and not connecting.cancelled() and connecting.exception() is None


def _has_ended(connecting: asyncio.Task[_Connection]) -> bool:
    if not connecting.done():
        return False
    return not _is_open(connecting) or connecting.result().has_ended


class _Parser(nats.protocol.parser.Parser):
    """nats-py's parser, which takes no more than a bounded answer."""

    async def parse(self, data: bytes = b"") -> None:
        if len(self.buf) + len(data) > LARGEST_ANSWER:
            raise nats.errors.ProtocolError
        await super().parse(data)


class _Client(nats.aio.client.Client):
    """nats-py's client, for servers that are not to be trusted.

    It tells nothing to a server without TLS if it is to use TLS: nats-py goes on in the clear if
    the server, or somebody in between, says that it has no TLS. And it heeds the limits of an
    account, which come after the login.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ps = _Parser(self)

    def _connect_command(self) -> bytes:
        wanted = self._current_server is not None and self._current_server.uri.scheme == "tls"
        if wanted and not self._server_info.get("tls_required"):
            raise Refused("the server does not require TLS")
        return super()._connect_command()

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        await super()._process_info(info, initial_connection)
        if isinstance(largest := info.get("max_payload"), int) and largest > 0:
            self._max_payload = largest


class _Connection:
    """A connection to one server. ``error`` is what the server has found wrong last."""

    def __init__(self) -> None:
        self._client = _Client()
        self.stream = self._client.jetstream()
        self.ended = asyncio.Event()
        self.error: str | None = None

    @property
    def is_connected(self) -> bool:
        return self._client.is_connected

    @property
    def has_ended(self) -> bool:
        return self.ended.is_set() or self._client.is_closed

    @property
    def received(self) -> int:
        """The number of answers so far."""
        return int(self._client.stats["in_msgs"])

    @property
    def largest(self) -> int:
        """Bytes of an event and its headers that the server takes at most."""
        return self._client.max_payload

    async def open(self, server: str, host: str, login: Login, authorities: ssl.SSLContext) -> None:
        credentials = nats.aio.client.RawCredentials(login.credentials)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await self._client.connect(
                    server,
                    name="wasession",
                    error_cb=self._on_error,
                    closed_cb=self._on_closed,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=CONNECT_TIMEOUT,
                    ping_interval=PING_INTERVAL,
                    max_outstanding_pings=UNANSWERED_PINGS,
                    tls=authorities,
                    tls_hostname=host,
                    user=login.user,
                    password=login.password,
                    user_credentials=credentials if login.credentials else None,
                )
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        with contextlib.suppress(TimeoutError, nats.errors.Error, OSError):
            async with asyncio.timeout(CLOSING):
                await self._client.close()
        if (writer := getattr(self._client._transport, "_io_writer", None)) is not None:
            writer.transport.abort()  # also if the server reads no more
        self.ended.set()

    async def _on_error(self, error: Exception) -> None:
        self.error = describe(error)

    async def _on_closed(self) -> None:
        self.ended.set()


def describe(error: Exception) -> str:
    """Return what has failed, in words that have no content of the server's answer."""
    text = str(error).lower()
    match error:
        case Refused():
            return str(error)
        case nats.errors.AuthorizationError():
            return "the server does not accept the credentials"
        case nats.errors.NoServersError():
            return "cannot connect"
        case nats.errors.Error() if "authorization" in text or "authentication" in text:
            return "the server does not accept the credentials"
        case nats.errors.Error() if "permissions violation" in text:
            return "the credentials do not allow to publish this, or to receive the answer"
        case ssl.SSLCertVerificationError():
            return f"the certificate is not accepted: {error.verify_message}"
        case ssl.SSLError(reason=str(reason)):
            return f"TLS has failed: {reason.replace('_', ' ').lower()}"
        case TimeoutError():
            return f"no connection within {CONNECT_TIMEOUT} s"
        case OSError():
            return f"cannot connect: {error.strerror or error}"
    return f"the server does not speak NATS ({type(error).__name__})"
