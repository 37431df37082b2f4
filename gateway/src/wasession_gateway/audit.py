"""The audit log: who did or saw what, or was refused it. One line each, at any log level."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass

from aiohttp import hdrs, web

from wasession_gateway.auth import Identity

log = logging.getLogger("wasession.audit")
log.setLevel(logging.INFO)  # does not follow the root logger's
USER_AGENT_LENGTH = 128  # characters
DENIED = (401, 403)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a request came from. ``address`` is the caller's, as rate limits count it."""

    address: str
    user_agent: str | None
    request_id: str


SOURCE = web.RequestKey("source", Source)


def source(request: web.Request, address: str) -> Source:
    agent = request.headers.get(hdrs.USER_AGENT)
    return Source(address, agent[:USER_AGENT_LENGTH] if agent else None, secrets.token_hex(8))


class AuditLog:
    """The lines about the sessions of one namespace."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace

    def write(
        self,
        action: str,
        source: Source,
        caller: Identity | None,
        session: str | None,
        status: int | None,
        *,
        hidden: bool = False,
    ) -> None:
        """Write one line.

        ``session`` is the name of the WhatsAppSession. ``status`` is that of the response, None if
        the request was interrupted. ``hidden`` says that a 404 stands for another user's session.
        """
        log.info(
            "audit",
            extra={
                "event": "audit",
                "action": action,
                "subject": caller.subject if caller is not None else None,
                "admin": caller.admin if caller is not None else None,
                "scopes": sorted(caller.permissions) if caller is not None else None,
                "tokenId": caller.token_id if caller is not None else None,
                "namespace": self._namespace,
                "session": session,
                "address": source.address,
                "userAgent": source.user_agent,
                "outcome": _outcome(status, hidden),
                "status": status,
                "requestId": source.request_id,
            },
        )


def _outcome(status: int | None, hidden: bool) -> str:
    if status is not None and status < 400:
        return "ok"
    return "denied" if status in DENIED or hidden else "failed"
