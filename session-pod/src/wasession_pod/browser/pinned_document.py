"""A pinned document of WhatsApp Web in place of the one that its server sends.

The request still goes to the server, and the response keeps its headers: so the page has the URL,
the cookies, the isolation and the content security policy of the real one. Only the body is
replaced, and in it the nonce of its scripts by that of the policy.
"""

from __future__ import annotations

import base64
import re
from typing import Any
from urllib.parse import urlsplit

# Of the body that is replaced; ``link`` would preload the scripts of another version. Chromium has
# stored the cookies already.
REPLACED = frozenset(
    {
        "content-encoding",
        "content-length",
        "content-md5",
        "etag",
        "last-modified",
        "link",
        "set-cookie",
        "transfer-encoding",
    }
)
POLICIES = ("content-security-policy", "content-security-policy-report-only")
POLICY_NONCE = re.compile(r"'nonce-([A-Za-z0-9+/_=-]{4,256})'")
DOCUMENT_NONCE = re.compile(rb"""\bnonce=["']([A-Za-z0-9+/_=-]{4,256})["']""")


def replaces(url: str) -> bool:
    """Return whether a URL of the origin is that of the document."""
    return urlsplit(url).path in ("", "/")


def fulfillment(document: bytes, headers: list[dict[str, str]]) -> dict[str, Any]:
    """Return the parameters of ``Fetch.fulfillRequest`` for a response with these headers."""
    return {
        "responseCode": 200,
        "responseHeaders": [header for header in headers if header["name"].lower() not in REPLACED],
        "body": base64.b64encode(with_nonce(document, headers)).decode(),
    }


def with_nonce(document: bytes, headers: list[dict[str, str]]) -> bytes:
    """Return the document with the policy's nonce, without which none of its scripts would run.

    WhatsApp Web also has it in the configuration of its scripts, which add others with it.
    """
    given = DOCUMENT_NONCE.search(document)
    policies = [header["value"] for name in POLICIES for header in headers
                if header["name"].lower() == name]  # fmt: skip
    expected = next(filter(None, map(POLICY_NONCE.search, policies)), None)
    if given is None or expected is None:
        return document
    return document.replace(given[1], expected[1].encode())
