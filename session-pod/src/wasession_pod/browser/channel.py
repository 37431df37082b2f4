"""What the bridge tells the pod: from the page's top frame, and in order."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from wasession_pod.browser.cdp import Session

BINDING = "__wasessionEmit"
CONNECT = "__wasessionConnect"


class Channel:
    """Calls ``on_payload`` for each string that the bridge of the top frame's document emits.

    Chromium adds a binding to all frames that exist at that moment, and reports each call with the
    ID of its JavaScript context. Which one is the top frame's, the bridge tells with a secret that
    it alone gets. Until a document is connected, its bridge keeps what it emits.
    """

    def __init__(self, session: Session, top_frame: str, on_payload: Callable[[str], None]) -> None:
        self._session, self._top_frame, self._on_payload = session, top_frame, on_payload
        self._secret = secrets.token_hex(16)
        self._context: int | None = None  # of the top frame's document
        session.on("Page.frameNavigated", self._on_document)
        session.on("Runtime.bindingCalled", self._on_call)

    def _on_document(self, event: dict[str, Any]) -> None:
        """Connect a new document: without the Runtime domain no binding outlives the last one."""
        if event["frame"]["id"] != self._top_frame:
            return
        self._context = None
        self._session.post("Runtime.removeBinding", name=BINDING)
        self._session.post("Runtime.addBinding", name=BINDING)
        connect = f"window.{CONNECT}?.(window.{BINDING}, '{self._secret}'); delete window.{BINDING}"
        self._session.post("Runtime.evaluate", expression=connect)

    def _on_call(self, event: dict[str, Any]) -> None:
        payload, context = event["payload"], event["executionContextId"]
        if event["name"] != BINDING or not isinstance(payload, str):
            return
        if payload == self._secret:
            self._context = context
        elif context == self._context:
            self._on_payload(payload)
