"""What all senders have in common: attempts, secrets that may change, and trusted authorities."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeVar

from wasession_api.v1alpha1.delivery import SECRET_NAME

from wasession_pod.delivery.cloud_events import Request
from wasession_pod.delivery.plan import Outcome

AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
SECRET_LIFETIME = 10.0  # seconds until a key of the Secret is read again
T = TypeVar("T")


class Attempt(NamedTuple):
    """``wish``: seconds that the receiver wants to be left alone. ``error`` quotes no answer."""

    outcome: Outcome
    error: str = ""
    wish: float = 0.0


class Sender(Protocol):
    """Sends events to one webhook or sink."""

    async def attempt(self, request: Request) -> Attempt:
        """Send an event once. Never raises what the receiver or the network is to blame for."""


class SecretUnavailable(Exception):
    """The Secret has no usable key of this name; the message says why."""


class Secret(Generic[T]):
    """The values in a mounted Secret, which may change at any time.

    ``parse`` raises ``ValueError`` with what is wrong, without the value.
    """

    def __init__(self, directory: Path, parse: Callable[[str], T]) -> None:
        self._directory, self._parse = directory, parse
        self._known: dict[str, tuple[float, T]] = {}

    async def read(self, key: str) -> T:
        """Return the value of a key; raise ``SecretUnavailable``."""
        if key in self._known and time.monotonic() - self._known[key][0] < SECRET_LIFETIME:
            return self._known[key][1]
        try:
            value = self._parse(await asyncio.to_thread((self._directory / key).read_text))
        except OSError:
            raise SecretUnavailable(f"the Secret {SECRET_NAME} has no key {key}") from None
        except UnicodeDecodeError:
            raise SecretUnavailable(f"the key {key} of {SECRET_NAME} is no text") from None
        except ValueError as error:
            raise SecretUnavailable(
                f"the key {key} of {SECRET_NAME} cannot be used: {error}"
            ) from None
        self._known[key] = (time.monotonic(), value)
        return value


def tls(ca_bundle: Path | None) -> ssl.SSLContext:
    """Return a context that trusts the system's authorities, and those of a file."""
    context = ssl.create_default_context(cafile=str(AUTHORITIES) if AUTHORITIES.exists() else None)
    if ca_bundle is not None:
        with contextlib.suppress(OSError):  # which Chromium reports
            context.load_verify_locations(ca_bundle)
    return context
