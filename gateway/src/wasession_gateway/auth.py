"""Who asks: JSON Web Tokens, signed with a shared secret (HS256) or by an issuer with published keys (RS256, ES256)."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import jwt

from wasession_gateway import metrics
from wasession_gateway.settings import Settings

log = logging.getLogger(__name__)
LONGEST_TOKEN = 8000  # bytes; what an HTTP header can hold
LONGEST_SUBJECT = 253  # characters, as in spec.owner
LEEWAY = 5.0  # seconds between the issuer's clock and ours
KEY_TYPES = {"RS256": "RSA", "ES256": "EC"}
KEYS_LIFETIME = 600.0  # seconds until an issuer's keys are fetched again
KEYS_RETRY = 15.0  # seconds at least between two fetches
KEYS_TIMEOUT = aiohttp.ClientTimeout(total=5)


class Unauthorized(Exception):
    """The token is not good; says why."""


class KeysUnavailable(Exception):
    """The issuer's keys cannot be had now, so that nothing can be said about the token."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A verified token's content. ``expires_at`` is in seconds since the epoch."""

    subject: str
    admin: bool
    expires_at: float

    @property
    def role(self) -> tuple[str, bool]:
        """What does not change when a token is renewed."""
        return self.subject, self.admin

    def may_see(self, owner: str | None) -> bool:
        return self.admin or owner == self.subject


class Authenticator:
    """Verifies tokens. The key and the algorithm go together: neither is the token's choice."""

    def __init__(self, settings: Settings, http: aiohttp.ClientSession) -> None:
        self._secret = (
            settings.jwt_secret.get_secret_value().encode() if settings.jwt_secret else None
        )
        self._keys = IssuerKeys(str(settings.jwks_url), http) if settings.jwks_url else None
        self._audience, self._issuer = settings.jwt_audience, settings.jwt_issuer

    async def identify(self, token: object) -> Identity:
        """Raises ``Unauthorized`` or ``KeysUnavailable``."""
        try:
            return await self._identify(token)
        except Unauthorized:
            metrics.TOKENS_REFUSED.inc()
            raise

    async def _identify(self, token: object) -> Identity:
        if not isinstance(token, str) or not 1 <= len(token) <= LONGEST_TOKEN:
            raise Unauthorized("a token is needed")
        try:
            header = jwt.get_unverified_header(token)
            algorithm, key = header.get("alg"), await self._key(header)
            claims = jwt.decode(
                token,
                key,
                algorithms=[str(algorithm)],
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY,
                options={"require": ["exp", "sub"], "verify_aud": self._audience is not None},
            )
        except jwt.ExpiredSignatureError:
            raise Unauthorized("the token has expired") from None
        except jwt.MissingRequiredClaimError as error:
            raise Unauthorized(f"the token has no {error.claim}") from None
        except (jwt.InvalidAudienceError, jwt.InvalidIssuerError):
            raise Unauthorized("the token is for another audience or of another issuer") from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            raise Unauthorized("the token is not valid") from None
        return _identity(claims)

    async def _key(self, header: Mapping[str, Any]) -> Any:
        algorithm, name = header.get("alg"), header.get("kid")
        if algorithm == "HS256" and self._secret is not None:
            return self._secret
        if algorithm in KEY_TYPES and self._keys is not None:
            return (await self._keys.find(algorithm, name if isinstance(name, str) else None)).key
        raise Unauthorized("the token is signed with an algorithm that is not accepted here")


def _identity(claims: Mapping[str, Any]) -> Identity:
    subject = claims["sub"]
    if (
        not isinstance(subject, str)
        or not 1 <= len(subject) <= LONGEST_SUBJECT
        or not subject.isprintable()
    ):
        raise Unauthorized(
            f"the token's sub must be a printable string of 1 to {LONGEST_SUBJECT} characters"
        )
    return Identity(subject, claims.get("role") == "admin", float(claims["exp"]))


def bearer(header: str | None) -> str | None:
    """The token of an ``Authorization`` header; None when there is none."""
    scheme, _, token = (header or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


class IssuerKeys:
    """An issuer's JSON Web Key Set (RFC 7517), kept; fetched again when it is old or a token names a key not in it."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self._url, self._http = url, http
        self._keys: list[jwt.PyJWK] = []
        self._fetched = self._tried = -float("inf")
        self._lock = asyncio.Lock()
        self._renewal: asyncio.Task[None] | None = None

    async def find(self, algorithm: str, name: str | None) -> jwt.PyJWK:
        """Raises ``Unauthorized`` when there is no such key, ``KeysUnavailable`` when that cannot be known."""
        if (found := self._find(algorithm, name)) is not None:
            if time.monotonic() - self._fetched > KEYS_LIFETIME and (
                self._renewal is None or self._renewal.done()
            ):
                self._renewal = asyncio.create_task(
                    self._refresh()
                )  # nobody waits while the old ones are good
            return found
        await self._refresh()
        if (found := self._find(algorithm, name)) is not None:
            return found
        if self._fetched < self._tried:
            raise KeysUnavailable("the issuer's keys cannot be read now")
        raise Unauthorized("the token is signed with a key that its issuer does not publish")

    def _find(self, algorithm: str, name: str | None) -> jwt.PyJWK | None:
        fitting = [
            key
            for key in self._keys
            if key.key_type == KEY_TYPES[algorithm] and key.algorithm_name == algorithm
        ]
        if name is None:
            return fitting[0] if len(fitting) == 1 else None
        return next((key for key in fitting if key.key_id == name), None)

    async def _refresh(self) -> None:
        """One fetch at a time and not too often, whatever tokens come. Old keys stay good while no new ones are to be had."""
        async with self._lock:
            if time.monotonic() - self._tried < KEYS_RETRY:
                return
            self._tried = time.monotonic()
            try:
                async with self._http.get(
                    self._url, timeout=KEYS_TIMEOUT, raise_for_status=True
                ) as answer:
                    keys = jwt.PyJWKSet.from_dict(json.loads(await answer.read())).keys
            except (
                aiohttp.ClientError,
                TimeoutError,
                OSError,
                ValueError,
                TypeError,
                AttributeError,
                jwt.PyJWTError,
            ) as error:
                log.warning("issuer's keys not read", extra={"error": type(error).__name__})
                return
            self._keys = [key for key in keys if key.public_key_use != "enc"]
            self._fetched = self._tried
