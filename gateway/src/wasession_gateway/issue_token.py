"""``python -m wasession_gateway.issue_token SUBJECT`` prints a token signed with ``JWT_SECRET``."""

from __future__ import annotations

import argparse
import secrets
import time
from datetime import timedelta

import jwt
from pydantic import TypeAdapter, ValidationError
from wasession_api.base import Duration

from wasession_gateway.auth import MAXIMUM_SUBJECT
from wasession_gateway.scopes import Scope
from wasession_gateway.settings import Settings, load

DURATION: TypeAdapter[timedelta] = TypeAdapter(Duration)


def sign(
    settings: Settings,
    subject: str,
    lifetime: timedelta,
    *,
    admin: bool = False,
    scope: str | None = None,
) -> str:
    """Return a token that a gateway with these settings accepts.

    ``scope`` lists scopes separated by spaces; a token without permits everything.

    Raises ``ValueError`` when the settings have no secret.
    """
    if settings.jwt_secret is None:
        raise ValueError("JWT_SECRET is not set here: ask the identity provider for a token")
    claims: dict[str, object] = {
        "sub": subject,
        "exp": time.time() + lifetime.total_seconds(),
        "jti": secrets.token_hex(8),
    }
    if admin:
        claims["role"] = "admin"
    if scope is not None:
        claims["scope"] = scope
    required = {"aud": settings.jwt_audience, "iss": settings.jwt_issuer}
    claims |= {name: value for name, value in required.items() if value is not None}
    return jwt.encode(claims, settings.jwt_secret.get_secret_value(), algorithm="HS256")


def _subject(text: str) -> str:
    if not 1 <= len(text) <= MAXIMUM_SUBJECT or not text.isprintable():
        raise argparse.ArgumentTypeError(f"must be 1 to {MAXIMUM_SUBJECT} printable characters")
    return text


def _scope(text: str) -> str:
    if unknown := set(text.split()) - set(Scope):
        raise argparse.ArgumentTypeError(
            f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(Scope)}"
        )
    return " ".join(text.split())


def _lifetime(text: str) -> timedelta:
    try:
        return DURATION.validate_python(text)
    except ValidationError as error:
        raise argparse.ArgumentTypeError(
            error.errors()[0]["msg"].removeprefix("Value error, ")
        ) from None


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m wasession_gateway.issue_token",
        description="Print a token for the gateway.",
    )
    parser.add_argument("subject", type=_subject, help="owner of the sessions: their spec.owner")
    parser.add_argument("--admin", action="store_true", help="grant access to all sessions")
    parser.add_argument(
        "--scope",
        type=_scope,
        help='what the token permits, such as "sessions:read pair"; everything if omitted',
    )
    parser.add_argument(
        "--lifetime", type=_lifetime, default="1h", help="such as 30m (default: %(default)s)"
    )
    arguments = parser.parse_args()
    try:
        print(
            sign(
                load(),
                arguments.subject,
                arguments.lifetime,
                admin=arguments.admin,
                scope=arguments.scope,
            )
        )
    except ValueError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
