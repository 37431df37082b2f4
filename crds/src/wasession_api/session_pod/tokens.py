"""Read the bearer tokens in a session's Secret. Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

MIN_LENGTH = 32  # characters; the operator generates longer ones
KEYS = ("token", "previousToken")


def tokens(secret: Mapping[str, Any]) -> list[str]:
    """Return the tokens that the session's pod may accept, the present one first.

    Empty without a valid present token. After a rotation the pod knows only the previous token for
    up to a minute, until kubelet has updated the mounted Secret.
    """
    data = secret.get("data") or {}
    present, previous = (_decode(data.get(key)) for key in KEYS)
    if not present:
        return []
    return [present] if previous in ("", present) else [present, previous]


def _decode(value: object) -> str:
    """Return the token; empty if it is none that an HTTP header can carry."""
    try:
        token = (
            base64.b64decode(value, validate=True).decode("ascii").strip()
            if isinstance(value, str)
            else ""
        )
    except ValueError:
        return ""
    return token if len(token) >= MIN_LENGTH and token.isprintable() and " " not in token else ""
