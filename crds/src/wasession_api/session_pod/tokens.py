"""The bearer tokens in a session's Secret, as its readers find them: pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

SHORTEST = 32  # characters; the operator makes longer ones
KEYS = ("token", "previousToken")


def tokens(secret: Mapping[str, Any]) -> list[str]:
    """The tokens that the session's pod may accept, the present one first; empty while the present one cannot be used.

    After a rotation the pod knows only the one before for up to a minute, until kubelet has brought
    it the changed Secret.
    """
    found = [_decoded((secret.get("data") or {}).get(key)) for key in KEYS]
    return [token for token in dict.fromkeys(found) if token] if found[0] else []


def _decoded(value: object) -> str:
    """Empty for what cannot be a token: an HTTP header would not carry it."""
    try:
        token = (
            base64.b64decode(value, validate=True).decode("ascii").strip()
            if isinstance(value, str)
            else ""
        )
    except ValueError:
        return ""
    return token if len(token) >= SHORTEST and token.isprintable() and " " not in token else ""
