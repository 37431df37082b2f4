"""Authentication by JSON Web Tokens.

Tokens are signed with a shared secret (HS256), or by an issuer that publishes its keys (RS256,
ES256).
"""

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

from wasession_gateway import metrics, scopes
from wasession_gateway.scopes import PERMISSIONS, Scope
from wasession_gateway.settings import Settings

log = logging.getLogger(__name__)
MAXIMUM_TOKEN = 8000  # bytes; as much as an HTTP header can hold
MAXIMUM_SUBJECT = 253  # characters, as in spec.owner
TOKEN_ID_LENGTH = 128  # characters of a jti that the audit log has
ISSUED_IN_FUTURE = (
    "the token was issued in the future: check the clocks of its issuer and the gateway"
)
NOT_VALID_YET = "the token is not valid yet"
KEY_TYPES = {"RS256": "RSA", "ES256": "EC"}
KEYS_LIFETIME = 600.0  # seconds after which an issuer's keys are fetched again
KEYS_RETRY = 15.0  # seconds between two fetches, at least
KEYS_TIMEOUT = aiohttp.ClientTimeout(total=5)


class Unauthorized(Exception):
    """The token is not accepted; the message says why."""


class KeysUnavailable(Exception):
    """The issuer's keys cannot be fetched, so that the token cannot be verified."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The caller, from a verified token, which is accepted until a time (s since the epoch).

    ``admin`` says that the caller's permissions extend to the sessions of all owners.
    """

    subject: str
    admin: bool
    accepted_until: float
    permissions: frozenset[Scope] = PERMISSIONS
    token_id: str | None = None

    def may_see(self, owner: str | None) -> bool:
        return self.admin or owner == self.subject

    def may(self, *wanted: str) -> bool:
        """Whether the token has one of these scopes: of names separated by spaces, all."""
        held = self.permissions | {Scope.ADMIN} if self.admin else self.permissions
        return any(held.issuperset(scope.split()) for scope in wanted)

    def require(self, *wanted: str) -> None:
        """Raise ``HTTPProblem`` unless the token has one of these scopes."""
        if not self.may(*wanted):
            raise scopes.insufficient(wanted)


class Authenticator:
    """Verify tokens. The gateway decides which key goes with which algorithm, not the token."""

    def __init__(self, settings: Settings, http: aiohttp.ClientSession) -> None:
        self._secret = (
            settings.jwt_secret.get_secret_value().encode() if settings.jwt_secret else None
        )
        self._keys = IssuerKeys(str(settings.jwks_url), http) if settings.jwks_url else None
        self._audience, self._issuer = settings.jwt_audience, settings.jwt_issuer
        self._leeway = settings.jwt_leeway.total_seconds()

    async def identify(self, token: object) -> Identity:
        """Return the caller; raises ``Unauthorized`` or ``KeysUnavailable``."""
        try:
            return await self._identify(token)
        except Unauthorized:
            metrics.TOKENS_REJECTED.inc()
            raise

    async def _identify(self, token: object) -> Identity:
        if not isinstance(token, str) or not 1 <= len(token) <= MAXIMUM_TOKEN:
            raise Unauthorized("a token is required")
        try:
            header = jwt.get_unverified_header(token)
            algorithm, key = header.get("alg"), await self._key(header)
            claims = jwt.decode(
                token,
                key,
                algorithms=[str(algorithm)],
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway,
                options={"require": ["exp", "sub"], "verify_aud": self._audience is not None},
            )
        except jwt.ExpiredSignatureError:
            raise Unauthorized("the token has expired") from None
        except jwt.ImmatureSignatureError as error:
            in_future = "(iat)" in str(error)  # else it is the token's nbf
            raise Unauthorized(ISSUED_IN_FUTURE if in_future else NOT_VALID_YET) from None
        except jwt.MissingRequiredClaimError as error:
            raise Unauthorized(f"the token has no {error.claim}") from None
        except (jwt.InvalidAudienceError, jwt.InvalidIssuerError):
            raise Unauthorized("the token is for another audience or from another issuer") from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            raise Unauthorized("the token is not valid") from None
        return _identity(claims, self._leeway)

    async def _key(self, header: Mapping[str, Any]) -> Any:
        algorithm, key_id = header.get("alg"), header.get("kid")
        if algorithm == "HS256" and self._secret is not None:
            return self._secret
        if algorithm in KEY_TYPES and self._keys is not None:
            key = await self._keys.find(algorithm, key_id if isinstance(key_id, str) else None)
            return key.key
        raise Unauthorized("the token is signed with an algorithm that is not accepted here")


def _identity(claims: Mapping[str, Any], leeway: float) -> Identity:
    subject = claims["sub"]
    if (
        not isinstance(subject, str)
        or not 1 <= len(subject) <= MAXIMUM_SUBJECT
        or not subject.isprintable()
    ):
        raise Unauthorized(
            f"the token's sub must be a printable string of 1 to {MAXIMUM_SUBJECT} characters"
        )
    try:
        accepted_until = float(claims["exp"]) + leeway
    except (TypeError, ValueError, OverflowError):
        raise Unauthorized("the token's exp is not a valid date") from None
    try:
        listed = scopes.listed(claims)
    except ValueError as error:
        raise Unauthorized(str(error)) from None
    token_id = claims.get("jti")
    return Identity(
        subject,
        claims.get("role") == "admin" or (listed is not None and Scope.ADMIN in listed),
        accepted_until,
        scopes.permissions(listed),
        str(token_id)[:TOKEN_ID_LENGTH] if token_id is not None else None,
    )


def bearer(header: str | None) -> str | None:
    """Return the token of an ``Authorization`` header, None when there is none."""
    scheme, _, token = (header or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def bare(token: object) -> object:
    """Return a token without the scheme and white space that are easily copied with it."""
    return bearer(token) or token.strip() if isinstance(token, str) else token


class IssuerKeys:
    """An issuer's JSON Web Key Set (RFC 7517), cached.

    Fetched again when it is old, or when a token names a key that it does not have.
    """

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self._url, self._http = url, http
        self._keys: list[jwt.PyJWK] = []
        self._fetched_at = self._tried_at = -float("inf")
        self._lock = asyncio.Lock()
        self._renewal: asyncio.Task[None] | None = None

    async def find(self, algorithm: str, key_id: str | None) -> jwt.PyJWK:
        """Return the key of a token.

        Raises ``Unauthorized`` when there is no such key, ``KeysUnavailable`` when that cannot be
        known.
        """
        if (key := self._find(algorithm, key_id)) is not None:
            self._renew_in_background()
            return key
        await self._fetch()
        if (key := self._find(algorithm, key_id)) is not None:
            return key
        if self._fetched_at < self._tried_at:
            raise KeysUnavailable("the token issuer's keys cannot be fetched at the moment")
        raise Unauthorized("the token is signed with a key that its issuer does not publish")

    def _find(self, algorithm: str, key_id: str | None) -> jwt.PyJWK | None:
        candidates = [
            key
            for key in self._keys
            if key.key_type == KEY_TYPES[algorithm] and key.algorithm_name == algorithm
        ]
        if key_id is None:
            return candidates[0] if len(candidates) == 1 else None
        return next((key for key in candidates if key.key_id == key_id), None)

    def _renew_in_background(self) -> None:
        """Nobody waits for new keys while the old ones serve."""
        is_old = time.monotonic() - self._fetched_at > KEYS_LIFETIME
        if is_old and (self._renewal is None or self._renewal.done()):
            self._renewal = asyncio.create_task(self._fetch())

    async def _fetch(self) -> None:
        """Fetch the keys, once at a time and not too often, whatever tokens come.

        The old keys stay in use while none can be fetched.
        """
        async with self._lock:
            if time.monotonic() - self._tried_at < KEYS_RETRY:
                return
            self._tried_at = time.monotonic()
            try:
                async with self._http.get(
                    self._url, timeout=KEYS_TIMEOUT, raise_for_status=True
                ) as response:
                    keys = jwt.PyJWKSet.from_dict(json.loads(await response.read())).keys
            except (
                aiohttp.ClientError,
                TimeoutError,
                OSError,
                ValueError,
                TypeError,
                AttributeError,
                jwt.PyJWTError,
            ) as error:
                log.warning(
                    "cannot fetch the token issuer's keys; continuing with those known",
                    extra={
                        "url": self._url,
                        "known": len(self._keys),
                        "error": f"{type(error).__name__}: {error}",
                    },
                )
                return
            self._keys = [key for key in keys if key.public_key_use != "enc"]
            self._fetched_at = self._tried_at
