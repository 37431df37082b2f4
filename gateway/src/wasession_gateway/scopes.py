"""Scopes: what a token permits (RFC 8693, 4.2; RFC 9068, 2.2.3)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from aiohttp import hdrs
from wasession_api.http.problem import HTTPProblem

# `scope` is a string of names separated by spaces. Entra ID calls it `scp`, Okta issues a list.
CLAIMS = ("scope", "scp")


class Scope(StrEnum):
    """``ADMIN`` says whose sessions, the others what may be done with them."""

    SESSIONS_READ = "sessions:read"
    SESSIONS_WRITE = "sessions:write"
    PAIR = "pair"
    MESSAGES_READ = "messages:read"
    MESSAGES_SEND = "messages:send"
    ADMIN = "admin"


PERMISSIONS = frozenset(Scope) - {Scope.ADMIN}
# Waking a session takes one of these: who may send wakes it by that alone.
WAKE = (Scope.MESSAGES_SEND, Scope.SESSIONS_WRITE)
# Looking at a page takes all of these: it shows chats, and a code to whoever may link a phone.
VIEW = " ".join((Scope.ADMIN, Scope.MESSAGES_READ, Scope.PAIR))


def listed(claims: Mapping[str, Any]) -> frozenset[str] | None:
    """Return the names that a token lists, also unknown ones; None if it has no such claim.

    Raises ``ValueError`` if the claim is malformed.
    """
    claim = next((name for name in CLAIMS if name in claims), None)
    if claim is None:
        return None
    value = claims[claim]
    names = value.split(" ") if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"the token's {claim} must be a string or a list of strings")
    return frozenset(names) - {""}


def permissions(listed: frozenset[str] | None) -> frozenset[Scope]:
    """Return what a token with these scopes permits: everything without the claim.

    ``admin`` alone permits everything too; next to others, it extends these to all owners. An
    unknown name is another one that permits nothing, not the same as none.
    """
    if listed is None or listed == {Scope.ADMIN}:
        return PERMISSIONS
    return frozenset(scope for scope in PERMISSIONS if scope in listed)


def insufficient(scopes: tuple[str, ...]) -> HTTPProblem:
    """Return the answer to a token that has none of these scopes (RFC 6750, 3.1).

    Names in one of them, separated by spaces, are required together.
    """
    challenge = f'Bearer error="insufficient_scope", scope="{" ".join(scopes)}"'
    names = " or ".join(" and ".join(scope.split()) for scope in scopes)
    return HTTPProblem(
        403,
        "Insufficient scope",
        f"the token lacks the scope {names}",
        {hdrs.WWW_AUTHENTICATE: challenge},
    )
