"""``python -m wasession_gateway.issue_token SUBJECT``: a token signed with the gateway's own secret, for who may run it there."""

from __future__ import annotations

import argparse
import time
from datetime import timedelta

import jwt
from pydantic import TypeAdapter, ValidationError
from wasession_api.base import Duration

from wasession_gateway.auth import LONGEST_SUBJECT
from wasession_gateway.settings import Settings, load

DURATION: TypeAdapter[timedelta] = TypeAdapter(Duration)


def sign(settings: Settings, subject: str, lifetime: timedelta, *, admin: bool = False) -> str:
    """A token that a gateway with these settings takes; raises ``ValueError`` when they have no secret."""
    if settings.jwt_secret is None:
        raise ValueError("there is no JWT_SECRET here: the issuer makes the tokens")
    claims: dict[str, object] = {"sub": subject, "exp": time.time() + lifetime.total_seconds()}
    if admin:
        claims["role"] = "admin"
    checked = {"aud": settings.jwt_audience, "iss": settings.jwt_issuer}
    claims |= {name: value for name, value in checked.items() if value is not None}
    return jwt.encode(claims, settings.jwt_secret.get_secret_value(), algorithm="HS256")


def _subject(given: str) -> str:
    if not 1 <= len(given) <= LONGEST_SUBJECT or not given.isprintable():
        raise argparse.ArgumentTypeError(f"must be 1 to {LONGEST_SUBJECT} printable characters")
    return given


def _lifetime(given: str) -> timedelta:
    try:
        return DURATION.validate_python(given)
    except ValidationError as error:
        raise argparse.ArgumentTypeError(
            error.errors()[0]["msg"].removeprefix("Value error, ")
        ) from None


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m wasession_gateway.issue_token",
        description="Prints a token for the gateway.",
    )
    parser.add_argument("subject", type=_subject, help="whose sessions it is for: spec.owner")
    parser.add_argument("--admin", action="store_true", help="it sees everybody's sessions")
    parser.add_argument(
        "--lifetime", type=_lifetime, default="1h", help="such as 30m; %(default)s when left out"
    )
    given = parser.parse_args()
    try:
        print(sign(load(), given.subject, given.lifetime, admin=given.admin))
    except ValueError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
