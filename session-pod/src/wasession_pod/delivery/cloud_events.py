"""The request that tells of an event: a CloudEvent, signed for webhooks as Standard Webhooks say.

See https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md and
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
KEY_PREFIX = "whsec_"
SHORTEST_KEY, LONGEST_KEY = 24, 64  # bytes, as Standard Webhooks say
TYPE_PREFIX = "dev.wasession."


class InvalidKey(ValueError):
    """What is in the Secret is no signing key; the message says why, without the key."""


class Request(NamedTuple):
    """An event as it is sent; ``body`` is a CloudEvent in JSON."""

    id: str
    kind: str
    body: bytes


def request(source: str, event_id: str, kind: str, time: str, chat: str, data: str) -> Request:
    """Return the request of an event; ``time`` in RFC 3339, ``data`` is JSON.

    ``source`` is the session, ``chat`` may be empty.
    """
    attributes = {
        "specversion": "1.0",
        "id": event_id,
        "source": source,
        "type": f"{TYPE_PREFIX}{kind}",
        "time": time,
        **({"subject": chat} if chat else {}),
        "datacontenttype": "application/json",
    }
    head = json.dumps(attributes, ensure_ascii=False, separators=(",", ":"))
    return Request(event_id, kind, f'{head[:-1]},"data":{data}}}'.encode())


def parse_keys(text: str) -> list[bytes]:
    """Return the signing keys of a Secret's value, one in each line; raise ``InvalidKey``.

    With several, a receiver accepts either: add the new one, change the receiver, remove the old.
    """
    keys = [_parse_key(line.strip()) for line in text.splitlines() if line.strip()]
    if not keys:
        raise InvalidKey("it is empty")
    return keys


def _parse_key(text: str) -> bytes:
    if not text.startswith(KEY_PREFIX):
        raise InvalidKey(f"it does not begin with {KEY_PREFIX}")
    try:
        key = base64.b64decode(text.removeprefix(KEY_PREFIX), validate=True)
    except binascii.Error:
        raise InvalidKey(f"what follows {KEY_PREFIX} is not base64") from None
    if not SHORTEST_KEY <= len(key) <= LONGEST_KEY:
        raise InvalidKey(f"it has {len(key)} bytes, not {SHORTEST_KEY} to {LONGEST_KEY}")
    return key


def signed_headers(made: Request, keys: Sequence[bytes], now: int) -> Mapping[str, str]:
    """Return the headers of an attempt; ``now`` in seconds since the epoch."""
    signed = f"{made.id}.{now}.".encode() + made.body
    signatures = (hmac.new(key, signed, hashlib.sha256).digest() for key in keys)
    return {
        "Content-Type": CONTENT_TYPE,
        "webhook-id": made.id,
        "webhook-timestamp": str(now),
        "webhook-signature": " ".join(
            f"v1,{base64.b64encode(signature).decode()}" for signature in signatures
        ),
    }
